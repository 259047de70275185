"""Weights larger than the memory of their device: what stays, what moves, and what that costs."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts, PlannedOffload, ResolvedPlan
from tidegate.spec import DeploymentSpec, OffloadSpec, Precision, SpecIssue
from tidegate_controlplane.domain.footprint import layer_bytes
from tidegate_controlplane.domain.size import remedy, size

SLOTS = 2
"""Streamed layers in memory at once: one computes while the next is brought."""
PCIE_GB_PER_S = 31.5
"""Of PCIe 4.0 with 16 lanes, each way (PCI-SIG: 16 GT/s a lane, 128b/130b coding)."""


def with_offload(
    spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan, room_bytes: int | None
) -> ResolvedPlan | SpecIssue:
    """The plan with its weights within what they may take of the device.

    `room_bytes` is what the device has for one replica, None where that is not known.
    """
    asked = spec.runtime.offload
    if asked is None:
        return plan
    rest = plan.memory_bytes - plan.weights_bytes
    if asked.memory is not None:
        budget = int(asked.memory)
    elif room_bytes is not None:
        budget = room_bytes - rest
    else:
        return _issue(None, "the machine is not chosen yet; say how much weights may take of it")
    if plan.weights_bytes <= budget:
        return plan
    if plan.precision == Precision.FP32:
        return _issue(
            asked.memory, "only packed weights are streamed; set runtime.precision to bf16 or int8"
        )
    layer = layer_bytes(facts, Precision(plan.precision))
    room = budget - (plan.weights_bytes - facts.layers * layer) - SLOTS * layer
    if room < 0:
        return _issue(
            asked.memory,
            f"{size(max(0, budget))} hold less than the last layer and {SLOTS} others, "
            f"{size(budget - room)}; give weights that much, {remedy(plan)}or lower "
            "runtime.context_tokens, runtime.max_sequences or runtime.kv_cache",
        )
    streamed = facts.layers - room // layer
    offload = PlannedOffload(
        resident_bytes=budget,
        streamed_layers=streamed,
        step_bytes=streamed * layer,
        link="host" if plan.gpu else "disk",
        steps_per_gb=round(1e9 / (streamed * layer), 4),
    )
    return plan.model_copy(update={"offload": offload, "memory_bytes": rest + budget})


def with_automatic_offload(
    spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan, room_bytes: int | None
) -> ResolvedPlan | None:
    """The plan as `runtime.offload: {}` would make it, where that was not said; None where it could
    not be said, or would change nothing.
    """
    if spec.runtime.offload is not None or spec.model.task.encodes or plan.tensor_parallel > 1:
        return None
    runtime = spec.runtime.model_copy(update={"offload": OffloadSpec()})
    held = with_offload(spec.model_copy(update={"runtime": runtime}), facts, plan, room_bytes)
    return None if isinstance(held, SpecIssue) or held.offload is None else held


def offload_remedy(plan: ResolvedPlan) -> str:
    """What to declare for a plan that streams, and what it would cost, for a refusal of one that
    does not.
    """
    offload = plan.offload
    assert offload is not None
    moved = f"{offload.streamed_layers} layers ({size(offload.step_bytes)})"
    if offload.link == "host":
        bound = f"{offload_bound(offload):.3g} tokens a second over PCIe 4.0 x16"
    else:
        bound = f"{offload.steps_per_gb:.3g} tokens a second for each GB/s of the disk"
    return (
        f"set runtime.offload to {{}}: {moved} would be brought at each step, so that a sequence "
        f"gets at most {bound}"
    )


def offload_bound(offload: PlannedOffload) -> float:
    """Steps a second at most, where layers come from the host's memory."""
    return offload.steps_per_gb * PCIE_GB_PER_S


def offload_cost(offload: PlannedOffload) -> str:
    """What bringing layers costs each step, in words and figures: bandwidth / bytes at most."""
    moved = f"runtime.offload: {offload.streamed_layers} layers ({size(offload.step_bytes)})"
    if offload.link == "host":
        return (
            f"{moved} are copied to the GPU at each step, so at most "
            f"{offload_bound(offload):.3g} steps a second "
            f"over PCIe 4.0 x16 ({PCIE_GB_PER_S} GB/s); more sequences at once share a step"
        )
    return (
        f"{moved} are read from the disk at each step, so at most {offload.steps_per_gb:.3g} steps "
        "a second for each GB/s that it gives; more sequences at once share a step"
    )


def _issue(value: object, message: str) -> SpecIssue:
    return SpecIssue("runtime.offload.memory", value, message)
