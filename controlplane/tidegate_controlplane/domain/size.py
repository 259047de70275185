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
    process = plan.memory_bytes - plan.weights_bytes - plan.kv_cache_bytes
    return (
        f"{size(plan.memory_bytes)} (weights {size(plan.weights_bytes)}, KV cache "
        f"{size(plan.kv_cache_bytes)}, process {size(process)})"
    )
