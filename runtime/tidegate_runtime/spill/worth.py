"""Whether blocks are brought back sooner than their tokens are computed, from what was measured."""

from __future__ import annotations

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS
from tidegate_runtime.spill.store import Found, Tier

HANDOVER_S = 0.002
"""From one thread to the other and back, about."""
_WEIGHT = 0.3
_HOPE = 0.95
_LEAST_TOKENS = 64


class Worth:
    """Rates that follow what happens: seconds a byte of each tier, seconds a prompt's token.

    Until both are known everything is worth bringing back. Each refusal brings the rate that it
    was based on a little nearer to being tried again, for a disk may be slow for a while only.
    """

    def __init__(self, record_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._byte_s: dict[Tier, float] = {}
        self._token_s: float | None = None

    def loaded(self, tier: Tier, blocks: int, seconds: float) -> None:
        """So many blocks were read and copied in this time."""
        rate = seconds / (blocks * self._record_bytes)
        self._byte_s[tier] = _towards(self._byte_s.get(tier), rate)

    def computed(self, tokens: int, seconds: float) -> None:
        """A step ran so many tokens of prompts; few of them say little."""
        if tokens >= _LEAST_TOKENS:
            self._token_s = _towards(self._token_s, seconds / tokens)

    def is_worth(self, found: Found) -> bool:
        """Whether to bring back the blocks that were found."""
        blocks = found.memory + found.disk
        if blocks == 0:
            return False
        if self._token_s is None:
            return True
        loading = HANDOVER_S + self._record_bytes * (
            found.memory * self._byte_s.get("memory", 0.0)
            + found.disk * self._byte_s.get("disk", 0.0)
        )
        if loading < blocks * BLOCK_TOKENS * self._token_s:
            return True
        for tier in self._byte_s:
            self._byte_s[tier] *= _HOPE
        return False


def _towards(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)
