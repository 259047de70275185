"""What a replica counts of blocks that leave its cache and come back.

The hits have the names that vLLM gives to those of a cache beside its own, in tokens as there.
"""

from __future__ import annotations

from prometheus_client import Counter

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.spill.store import Tier

_TIERS: tuple[Tier, ...] = ("memory", "disk")


class SpillMetrics:
    """See `spill.worker.SpillObserver`. Registered only where something is spilled."""

    def __init__(self, metrics: Metrics) -> None:
        self._asked = metrics.counter(
            "external_prefix_cache_queries", "Tokens looked for among the spilled ones."
        )
        self._hits = metrics.counter(
            "external_prefix_cache_hits", "Those of them that were brought back."
        )
        self._saved, self._saved_bytes, self._loaded, self._loaded_bytes = (
            _by_tier(metrics, what, says)
            for what, says in (
                ("saved_blocks", "Blocks that a tier took."),
                ("saved_bytes", "Their bytes."),
                ("loaded_blocks", "Blocks that came back from a tier."),
                ("loaded_bytes", "Their bytes."),
            )
        )

    def saved(self, tier: Tier, record_bytes: int) -> None:
        """Count a block that was kept."""
        self._saved[tier].inc()
        self._saved_bytes[tier].inc(record_bytes)

    def loaded(self, tier: Tier, record_bytes: int) -> None:
        """Count a block that came back."""
        self._loaded[tier].inc()
        self._loaded_bytes[tier].inc(record_bytes)

    def asked(self, blocks: int, hits: int) -> None:
        """Count what a newcomer lacked."""
        self._asked.inc(blocks * BLOCK_TOKENS)
        self._hits.inc(hits * BLOCK_TOKENS)


def _by_tier(metrics: Metrics, what: str, says: str) -> dict[Tier, Counter]:
    made = Counter(f"tidegate_kv_spill_{what}", says, ("tier",), registry=metrics.registry)
    return {tier: made.labels(tier) for tier in _TIERS}
