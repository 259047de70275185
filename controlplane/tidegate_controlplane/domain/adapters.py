"""What LoRA adapters add to the memory of a replica: those that can be in it at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import Precision

PANEL = 16
"""Compiled kernels read so many outputs of a factor at once; what is missing is zeros."""
INWARD = frozenset({"o_proj", "down_proj", "dense", "dense_4h_to_h", "fc2", "c_proj"})
"""Linears that a divided model divides by their inputs, as transformers names them in the plans of
its families (`base_model_tp_plan`); all others are divided by their outputs."""


@dataclass(frozen=True)
class Update:
    """A low-rank update of one linear: factors `[rank, inputs]` and `[outputs, rank]`.

    `linear` is the last part of its name.
    """

    rank: int
    inputs: int
    outputs: int
    linear: str = ""


Updates = Sequence[Update]
"""Of one adapter."""


def adapter_bytes(updates: Updates, precision: Precision, *, on_gpu: bool, devices: int = 1) -> int:
    """What one adapter takes of all devices that a model is divided over.

    4 bytes a value beside float32 weights, else 2 and, on a processor, whole panels; a model that
    is divided over several of those computes in float32.
    """
    if precision is not Precision.FP32 and not on_gpu and devices == 1:
        return sum(
            2 * (_whole(each.rank) * each.inputs + _whole(each.outputs) * each.rank)
            for each in updates
        )
    element = 2 if on_gpu and precision is not Precision.FP32 else 4
    return sum(element * each.rank * _wide(each, devices) for each in updates)


def loaded_bytes(
    adapters: Iterable[Updates],
    most: int,
    precision: Precision,
    *,
    on_gpu: bool,
    devices: int = 1,
) -> int:
    """What the largest `most` of them take, which may be in memory together."""
    sizes = (
        adapter_bytes(updates, precision, on_gpu=on_gpu, devices=devices) for updates in adapters
    )
    return sum(sorted(sizes, reverse=True)[:most])


def beside(plan: ResolvedPlan, adapters_bytes: int) -> ResolvedPlan:
    """A replica's plan with the adapters that are declared now: they come and go while it runs."""
    more = adapters_bytes - plan.adapters_bytes
    return plan.model_copy(
        update={"adapters_bytes": adapters_bytes, "memory_bytes": plan.memory_bytes + more}
    )


def _wide(update: Update, devices: int) -> int:
    """Inputs and outputs on all devices: each has the whole of the factor that is not divided."""
    if update.linear in INWARD:
        return update.inputs + update.outputs * devices
    return update.inputs * devices + update.outputs


def _whole(outputs: int) -> int:
    return -(-outputs // PANEL) * PANEL
