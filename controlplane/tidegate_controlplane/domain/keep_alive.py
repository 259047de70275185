"""How long a replica that is not needed now is kept: ski-rental over measured gaps.

Keeping a replica through a gap costs its seconds; letting it go costs a cold start, priced in
replica-seconds. Without knowledge, keeping it for exactly that price costs at most twice the
optimum, and no deterministic rule does better (Karlin, Manasse, McGeoch and Owicki, 1994). With
gaps measured, the time that would have cost least over them is better still, as for functions
(Shahrad et al., "Serverless in the Wild", 2020). Gaps are counted in bins that widen by the square
root of two, so a history has a bounded size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

RATIO = math.sqrt(2.0)
BINS = 34
"""From one second to about a day."""
EDGES = tuple(RATIO**i for i in range(BINS))
FADE = 0.97
"""Of a count with each new gap: about the last thirty matter."""
ENOUGH = 5.0
"""Gaps after which the history is believed over the break-even time."""


@dataclass
class Gaps:
    """A histogram of gaps in seconds, older ones fading."""

    counts: list[float] = field(default_factory=lambda: [0.0] * BINS)

    @property
    def total(self) -> float:
        return sum(self.counts)

    def add(self, gap_s: float) -> None:
        self.counts = [count * FADE for count in self.counts]
        self.counts[_bin(gap_s)] += 1.0

    def keep_alive_s(self, price_s: float) -> float:
        """Seconds to keep one through a gap, for a cold start that costs `price_s`.

        Break-even before `ENOUGH` gaps; then, of zero and every bin's end, what would have cost
        least.
        """
        if self.total < ENOUGH:
            return price_s
        return min((0.0, *EDGES), key=lambda kept_s: (self._cost(kept_s, price_s), kept_s))

    def _cost(self, kept_s: float, price_s: float) -> float:
        """Replica-seconds over the recorded gaps, each taken to last until its bin's end."""
        return sum(
            count * (end_s if end_s <= kept_s else kept_s + price_s)
            for count, end_s in zip(self.counts, EDGES, strict=True)
            if count
        )


@dataclass
class _Level:
    gaps: Gaps = field(default_factory=Gaps)
    left_at: float | None = None
    """When the demand fell below this level; None while it is there."""


@dataclass
class KeepAlive:
    """For each number of replicas, how often and how long the demand was below it.

    The n-th replica is a ski-rental of its own: the first one is kept or not by the silence of the
    deployment, the fifth by how often five were needed. Time is an argument, never read.
    """

    levels: list[_Level] = field(default_factory=list)

    def see(self, demand: int, now_s: float) -> None:
        """The replicas that work called for at this moment."""
        while len(self.levels) < demand:
            self.levels.append(_Level())
        for index, level in enumerate(self.levels):
            if index < demand and level.left_at is not None:
                level.gaps.add(now_s - level.left_at)
                level.left_at = None
            elif index >= demand and level.left_at is None:
                level.left_at = now_s

    def kept(self, price_s: float, now_s: float) -> int:
        """The replicas that are worth keeping now, those that are needed among them."""
        for count in range(len(self.levels), 0, -1):
            level = self.levels[count - 1]
            if level.left_at is None:
                return count
            if now_s - level.left_at < level.gaps.keep_alive_s(price_s):
                return count
        return 0

    def first_keep_alive_s(self, price_s: float) -> float:
        """How long the last replica stays in silence."""
        return self.levels[0].gaps.keep_alive_s(price_s) if self.levels else price_s


def _bin(gap_s: float) -> int:
    """The first bin whose end is not before `gap_s`; the last one is open."""
    if gap_s <= 1.0:
        return 0
    return min(BINS - 1, math.ceil(math.log(gap_s, RATIO) - 1e-9))
