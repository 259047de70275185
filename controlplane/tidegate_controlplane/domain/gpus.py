"""What a wish for GPUs means: at all, and on the control plane's own machine."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.offers import is_gpu
from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import DeploymentSpec, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.offers import UTILISATION, usable
from tidegate_controlplane.domain.on_offer import with_cache
from tidegate_controlplane.domain.size import remedy, size


@dataclass(frozen=True)
class MachineGpu:
    """A GPU of the control plane's machine."""

    name: str
    """As its driver calls it, such as `NVIDIA H200`."""
    memory_bytes: int
    """Of one."""
    count: int = 1
    """How many of this kind the machine has."""


def gpu_issue(spec: DeploymentSpec, own: MachineGpu | None, *, at_most: int) -> SpecIssue | None:
    """Why a wish for GPUs cannot be honoured, whatever the model takes.

    `own` is the GPU of this machine, `at_most` what one replica can be divided over.
    """
    wish = spec.hardware.gpu
    if wish is None:
        return None
    if spec.model.task.encodes:
        return _issue(spec, f"model.task '{spec.model.task}' runs on processors; remove it")
    if wish.count > at_most:
        return _issue(
            spec,
            f"one replica runs on at most {at_most}; set hardware.gpu.count to {at_most}, and "
            "raise scaling.max_replicas for more GPUs",
        )
    if spec.hardware.provisioner is not ProvisionerName.LOCAL:
        return None
    if own is None:
        return _issue(
            spec, "this machine has no GPU; remove it, or set hardware.provisioner to ray or aws"
        )
    if wish.type is not None and not is_gpu(own.name, wish.type):
        return _issue(
            spec, f"this machine's GPU is {own.name}; ask for that, or leave the type out"
        )
    if wish.count > own.count:
        return _issue(
            spec,
            f"this machine has {own.count} x {own.name}; set hardware.gpu.count to at most "
            f"{own.count}, or hardware.provisioner to ray or aws",
        )
    return None


def gpu_share(plan: ResolvedPlan, gpu: MachineGpu) -> int:
    """What one replica can have of this machine's GPUs, which all replicas share."""
    return usable(gpu.memory_bytes) * plan.tensor_parallel // plan.max_replicas


def on_own_gpu(
    spec: DeploymentSpec, plan: ResolvedPlan, gpu: MachineGpu, *, kv_most_bytes: int
) -> ResolvedPlan | SpecIssue:
    """The plan with a KV cache that fills its share of this machine's GPUs.

    `plan` has the least cache that will do. All replicas share the same GPUs, each of which holds
    an equal part of every replica.
    """
    share = gpu_share(plan, gpu)
    if plan.memory_bytes <= share:
        bound = spec.hardware.memory
        return with_cache(plan, share if bound is None else min(share, int(bound)), kv_most_bytes)
    gpus = "" if plan.tensor_parallel == 1 else f"{plan.tensor_parallel} x "
    room = usable(gpu.memory_bytes) * plan.tensor_parallel
    return _issue(
        spec,
        f"one replica needs {size(plan.memory_bytes)}, and {plan.max_replicas} of them share "
        f"{size(room)} ({UTILISATION:.0%}) of this machine's {gpus}{gpu.name}; lower "
        "scaling.max_replicas, runtime.context_tokens or runtime.precision, "
        f"{remedy(plan)}or use a smaller model",
    )


def _issue(spec: DeploymentSpec, message: str) -> SpecIssue:
    wish = spec.hardware.gpu
    return SpecIssue("hardware.gpu", wish.model_dump(mode="json") if wish else None, message)
