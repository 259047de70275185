"""Opens a Ray cluster as the settings describe it."""

from __future__ import annotations

from tidegate_controlplane.provision.ray.agent import Orders
from tidegate_controlplane.provision.ray.provisioner import RayProvisioner
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.provision.zygote_starter import zygote_command
from tidegate_controlplane.settings import RaySettings


async def open_ray(around: Surroundings) -> RayProvisioner:
    """Raises StartFailed."""
    everything = around.settings
    settings = everything.ray or RaySettings()
    orders = Orders(
        directory=settings.node_dir or everything.data_dir / "node",
        settings=everything.reconcile,
        telemetry=everything.telemetry,
        zygote=zygote_command(everything.telemetry) if settings.zygote else None,
        warm_bytes=everything.warm_bytes,
    )
    opened = RayProvisioner(settings, orders, around.clock, around.changed, around.token_of)
    await opened.open()
    return opened
