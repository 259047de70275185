"""What the components declare, run once per set of arguments and kept."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.unit.infra.arguments import endpoint_args, platform_args

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.declared import Declared, of_type


@cache
def endpoint_resources(mode: Mode, **changes: Any) -> tuple[Declared, ...]:
    """The resources of one endpoint."""
    args = endpoint_args(mode, **changes)
    return tuple(declared_by(lambda: InferenceEndpoint("smol", args)))


@cache
def platform_resources(*, on_the_internet: bool = False) -> tuple[Declared, ...]:
    """The resources of a platform that hosts models: closed, or with a public load balancer."""
    opened = {"internet": True, "internal": False, "allowed_cidrs": ("203.0.113.0/24",)}
    args = platform_args(**(opened if on_the_internet else {}))
    return tuple(declared_by(lambda: Platform("tidegate", args)))


def the(resources: tuple[Declared, ...], kind: str, name: str | None = None) -> Declared:
    """The one resource of a kind; by name where there are several."""
    found = [each for each in of_type(resources, kind) if name in (None, each.name)]
    assert len(found) == 1, f"{kind} {name or ''}: {[str(each) for each in found]}"
    return found[0]
