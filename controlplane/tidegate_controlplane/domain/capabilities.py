"""What a platform has to offer a plan."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.spec import DeploymentSpec, Precision, ProvisionerName
from tidegate_controlplane.domain.gpus import MachineGpu
from tidegate_controlplane.domain.on_offer import Market

LOCAL, AWS = ProvisionerName.LOCAL.value, ProvisionerName.AWS.value
"""Replicas on the control plane's machine: its memory and cores bound these alone."""


@dataclass(frozen=True)
class Capabilities:
    """What this platform can do, so that a plan promises nothing else."""

    provisioners: frozenset[str]
    """The places that its settings configure."""
    precisions: frozenset[Precision]
    memory_bytes: int
    """Of the machine, or of the container around it."""
    cores: int
    gpu: MachineGpu | None = None
    """That of the machine; the first one of several."""
    gpus_per_replica: int = 16
    """What the runtime divides a model over."""
    market: Market | None = None
    """Where the provisioner `aws` rents machines."""


def is_local(spec: DeploymentSpec) -> bool:
    """Whether replicas are on the control plane's machine."""
    return spec.hardware.provisioner is ProvisionerName.LOCAL
