"""Whether a replica has room where it is to be."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, Precision, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.capabilities import Capabilities, is_local
from tidegate_controlplane.domain.footprint import kv_bytes_per_token, read_bytes
from tidegate_controlplane.domain.gpus import gpu_share, on_own_gpu
from tidegate_controlplane.domain.on_offer import largest_gpu_bytes, on_offer
from tidegate_controlplane.domain.size import need, remedy, size

REMEDY = "lower runtime.context_tokens, runtime.max_sequences or runtime.kv_cache"


def placed(
    spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan, capabilities: Capabilities
) -> ResolvedPlan | SpecIssue:
    """The plan where its replicas will be, or why there is no room for one."""
    if too_big := _exceeds_bound(spec, plan):
        return too_big
    most = _kv_most_bytes(spec, facts, plan)
    if is_local(spec):
        if plan.gpu is not None and capabilities.gpu is not None:
            return on_own_gpu(spec, plan, capabilities.gpu, kv_most_bytes=most)
        return _beyond_machine(spec, plan, capabilities) or plan
    if spec.hardware.provisioner is not ProvisionerName.AWS or capabilities.market is None:
        return plan
    return on_offer(
        spec,
        plan,
        capabilities.market,
        kv_most_bytes=most,
        read_bytes=read_bytes(facts, Precision(plan.precision)),
        gpus_at_most=capabilities.gpus_per_replica,
    )


def room_bytes(spec: DeploymentSpec, plan: ResolvedPlan, capabilities: Capabilities) -> int | None:
    """What one replica can have of its device, on the largest of those for rent; None where the
    device is not known.
    """
    room: int | None
    if not is_local(spec):
        is_rented = spec.hardware.provisioner is ProvisionerName.AWS
        market = capabilities.market if is_rented else None
        if market is None or (room := largest_gpu_bytes(spec, market)) is None:
            return None
    elif plan.gpu is not None and capabilities.gpu is not None:
        room = gpu_share(plan, capabilities.gpu)
    else:
        room = capabilities.memory_bytes
    bound = spec.hardware.memory
    return room if bound is None else min(room, int(bound))


def _kv_most_bytes(spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan) -> int:
    """What a KV cache can make use of: every sequence of a batch at its full length."""
    if spec.model.task.encodes or spec.runtime.kv_cache is not None:
        return plan.kv_cache_bytes
    token = kv_bytes_per_token(facts, Precision(plan.precision))
    return plan.max_sequences * plan.context_tokens * token


def _exceeds_bound(spec: DeploymentSpec, plan: ResolvedPlan) -> SpecIssue | None:
    bound = spec.hardware.memory
    if bound is None or plan.memory_bytes <= bound:
        return None
    return SpecIssue(
        "hardware.memory",
        int(bound),
        f"one replica needs {need(plan)}, more than {size(int(bound))}; raise it, or "
        f"{remedy(plan)}{REMEDY}",
    )


def _beyond_machine(
    spec: DeploymentSpec, plan: ResolvedPlan, capabilities: Capabilities
) -> SpecIssue | None:
    if plan.memory_bytes <= capabilities.memory_bytes:
        return None
    return SpecIssue(
        "model.source",
        spec.model.source,
        f"one replica needs {need(plan)}, and this machine has "
        f"{size(capabilities.memory_bytes)} for replicas; {remedy(plan)}{REMEDY}, or use a "
        "smaller model",
    )
