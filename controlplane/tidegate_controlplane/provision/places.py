"""The places that can be had beside this machine, and what opens each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.provision.fleet import Open
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.settings import Settings


async def _open_aws(around: Surroundings) -> Provisioner:
    from tidegate_controlplane.provision.aws.opening import open_aws

    assert around.settings.aws
    directory = around.settings.data_dir / "aws"
    return await open_aws(around.settings.aws, directory, around.clock, around.changed)


async def _open_ray(around: Surroundings) -> Provisioner:
    from tidegate_controlplane.provision.ray.open import open_ray

    return await open_ray(around)


OPENERS: Mapping[str, Callable[[Surroundings], Awaitable[Provisioner]]] = {
    "aws": _open_aws,
    "ray": _open_ray,
}
"""By the name of the place, which is also that of its section in the settings."""

HOLDERS = frozenset({"aws"})
"""Places that hold something for a deployment beside its replicas, such as a stack."""


def configured(settings: Settings) -> frozenset[str]:
    """The places whose sections the settings have."""
    return frozenset(name for name in OPENERS if getattr(settings, name) is not None)


def openers(around: Surroundings) -> Mapping[str, Open]:
    """What opens each of the configured places."""
    return {name: partial(OPENERS[name], around) for name in configured(around.settings)}
