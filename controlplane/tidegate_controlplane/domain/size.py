"""Amounts as a person reads them."""

from __future__ import annotations

from tidegate.protocol.resources import ResolvedPlan


def size(count: int) -> str:
    """Bytes, in the unit that suits."""
    if count >= 1024**3:
        return f"{count / 1024**3:.1f} GiB"
    return f"{count / 1024**2:.0f} MiB"


FEWER_ADAPTERS = "load fewer adapters at once (runtime.max_adapters), train them with a lower rank"
LESS_SPILLED = "lower runtime.kv_spill.memory"


def need(plan: ResolvedPlan) -> str:
    """The memory of one replica, and what it is made of."""
    weights = plan.offload.resident_bytes if plan.offload else plan.weights_bytes
    drafting = plan.draft.weights_bytes + plan.draft.kv_cache_bytes if plan.draft else 0
    parts = (
        ("spilled prefixes", _spilled_bytes(plan)),
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


def remedy(plan: ResolvedPlan) -> str:
    """How what is beside weights and cache takes less, before other remedies; empty without any."""
    ways = ((FEWER_ADAPTERS, plan.adapters_bytes), (LESS_SPILLED, _spilled_bytes(plan)))
    return "".join(f"{way}, " for way, some in ways if some)


def _spilled_bytes(plan: ResolvedPlan) -> int:
    """Of prefixes, in the memory that the plan counts."""
    if plan.kv_spill is None or plan.gpu is not None:
        return 0
    return int(plan.kv_spill.memory or 0)
