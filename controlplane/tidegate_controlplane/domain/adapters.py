"""What LoRA adapters add to the memory of a replica: those that can be in it at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import Precision

PANEL = 16
"""Compiled kernels read so many outputs of a factor at once; what is missing is zeros."""


@dataclass(frozen=True)
class Update:
    """A low-rank update of one linear: factors `[rank, inputs]` and `[outputs, rank]`."""

    rank: int
    inputs: int
    outputs: int


Updates = Sequence[Update]
"""Of one adapter."""


def adapter_bytes(updates: Updates, precision: Precision, *, on_gpu: bool) -> int:
    """What one adapter takes: 4 bytes a value beside float32 weights, else 2 and, on processors,
    whole panels.
    """
    if precision is Precision.FP32 or on_gpu:
        element = 4 if precision is Precision.FP32 else 2
        return sum(element * each.rank * (each.inputs + each.outputs) for each in updates)
    return sum(
        2 * (_whole(each.rank) * each.inputs + _whole(each.outputs) * each.rank) for each in updates
    )


def loaded_bytes(
    adapters: Iterable[Updates], most: int, precision: Precision, *, on_gpu: bool
) -> int:
    """What the largest `most` of them take, which may be in memory together."""
    sizes = (adapter_bytes(updates, precision, on_gpu=on_gpu) for updates in adapters)
    return sum(sorted(sizes, reverse=True)[:most])


def beside(plan: ResolvedPlan, adapters_bytes: int) -> ResolvedPlan:
    """A replica's plan with the adapters that are declared now: they come and go while it runs."""
    more = adapters_bytes - plan.adapters_bytes
    return plan.model_copy(
        update={"adapters_bytes": adapters_bytes, "memory_bytes": plan.memory_bytes + more}
    )


def _whole(outputs: int) -> int:
    return -(-outputs // PANEL) * PANEL
