"""What a replica needs of one node of a cluster, and why no node has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import ResolvedPlan
from tidegate_controlplane.domain.footprint import host_bytes
from tidegate_controlplane.domain.size import size


@dataclass(frozen=True)
class Needs:
    """What is reserved for one replica, all of it on one node."""

    cpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_type: str | None = None

    def __str__(self) -> str:
        return _resources(self.cpus, self.memory_bytes, self.gpus, self.gpu_type)


@dataclass(frozen=True)
class ClusterNode:
    """One living node and all that it has, taken or not."""

    node_id: str
    address: str
    cpus: float
    memory_bytes: int
    gpus: float = 0
    gpu_type: str | None = None

    def __str__(self) -> str:
        has = _resources(self.cpus, self.memory_bytes, self.gpus, self.gpu_type)
        return f"{self.address} ({has})"

    def could_hold(self, needs: Needs) -> bool:
        """Whether it has room when nothing else runs there."""
        return (
            self.cpus >= needs.cpus
            and self.memory_bytes >= needs.memory_bytes
            and self.gpus >= needs.gpus
            and needs.gpu_type in (None, self.gpu_type)
        )


SHOWN_NODES = 8


def needs_of(plan: ResolvedPlan) -> Needs:
    """A replica without a number of threads counts as one CPU, though it may use every core."""
    gpu = plan.gpu
    return Needs(
        cpus=plan.threads or 1,
        memory_bytes=max(plan.memory_bytes, host_bytes(plan)),
        gpus=gpu.count if gpu else 0,
        gpu_type=gpu.type if gpu else None,
    )


def too_large(needs: Needs, nodes: Sequence[ClusterNode]) -> str | None:
    """Why no node could ever hold it; None when one could."""
    if any(node.could_hold(needs) for node in nodes):
        return None
    return (
        f"one replica needs {needs} on one node, and no node of the cluster has that: "
        f"{_listed(nodes)}; add a larger node, or lower hardware.cpu, hardware.gpu or the memory "
        "that the plan predicts"
    )


def all_taken(needs: Needs, nodes: Sequence[ClusterNode], waited_s: float) -> str:
    """Why it found no room, though a node is large enough."""
    return (
        f"one replica needs {needs} on one node, and none became free within {waited_s:g} s; the "
        f"cluster has {_listed(nodes)}, taken by what runs there; add a node, or lower "
        "scaling.max_replicas"
    )


def _listed(nodes: Sequence[ClusterNode]) -> str:
    if not nodes:
        return "there is no living node with a CPU"
    shown = ", ".join(str(node) for node in nodes[:SHOWN_NODES])
    rest = len(nodes) - SHOWN_NODES
    return f"{shown} and {rest} more" if rest > 0 else shown


def _resources(cpus: float, memory_bytes: int, gpus: float, gpu_type: str | None) -> str:
    parts = [_counted(cpus, "CPU"), size(memory_bytes)]
    if gpus:
        kind = f" of type {gpu_type}" if gpu_type else ""
        parts.append(_counted(gpus, "GPU") + kind)
    return ", ".join(parts)


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' if number != 1 else ''}"
