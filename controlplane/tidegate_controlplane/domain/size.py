"""Amounts as a person reads them."""

from __future__ import annotations

from tidegate.protocol.resources import ResolvedPlan


def size(count: int) -> str:
    """Bytes, in the unit that suits."""
    if count >= 1024**3:
        return f"{count / 1024**3:.1f} GiB"
    return f"{count / 1024**2:.0f} MiB"


def need(plan: ResolvedPlan) -> str:
    """The memory of one replica, and what it is made of."""
    spilled = 0
    if plan.kv_spill is not None and plan.gpu is None:
        spilled = int(plan.kv_spill.memory or 0)
    weights = plan.offload.resident_bytes if plan.offload else plan.weights_bytes
    drafting = plan.draft.weights_bytes + plan.draft.kv_cache_bytes if plan.draft else 0
    parts = (
        ("spilled prefixes", spilled),
        ("adapters", plan.adapters_bytes),
        ("draft model", drafting),
        ("heads", plan.heads.weights_bytes if plan.heads else 0),
    )
    process = plan.memory_bytes - weights - plan.kv_cache_bytes - sum(some for _, some in parts)
    beside = "".join(f", {name} {size(some)}" for name, some in parts if some)
    return (
        f"{size(plan.memory_bytes)} (weights {size(weights)}, KV cache "
        f"{size(plan.kv_cache_bytes)}{beside}, process {size(process)})"
    )
