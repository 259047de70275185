"""What the components declare, run once per set of arguments and kept."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.unit.infra.arguments import endpoint_args

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.declared import Declared, of_type


@cache
def endpoint_resources(mode: Mode, **changes: Any) -> tuple[Declared, ...]:
    """The resources of one endpoint."""
    args = endpoint_args(mode, **changes)
    return tuple(declared_by(lambda: InferenceEndpoint("smol", args)))


def the(resources: tuple[Declared, ...], kind: str, name: str | None = None) -> Declared:
    """The one resource of a kind; by name where there are several."""
    found = [each for each in of_type(resources, kind) if name in (None, each.name)]
    assert len(found) == 1, f"{kind} {name or ''}: {[str(each) for each in found]}"
    return found[0]
