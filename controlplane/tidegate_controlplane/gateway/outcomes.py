"""How the answers of one revision ended and how long they took, in bounded space."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tidegate.protocol.resources import OutcomeView

SHORTEST_S = 1e-5
LONGEST_S = 1e4
PER_DECADE = 32
"""Buckets for each factor of ten: neighbours differ by 7.5 %."""


class Histogram:
    """Durations in log-spaced buckets: any number of samples in the same few kilobytes."""

    def __init__(self) -> None:
        self._buckets = [0] * (round(math.log10(LONGEST_S / SHORTEST_S)) * PER_DECADE + 1)
        self.count = 0

    def add(self, seconds: float) -> None:
        within = min(max(seconds, SHORTEST_S), LONGEST_S)
        self._buckets[round(math.log10(within / SHORTEST_S) * PER_DECADE)] += 1
        self.count += 1

    @property
    def median_s(self) -> float | None:
        """The middle of the bucket with the median; None without a sample."""
        seen = 0
        for index, number in enumerate(self._buckets):
            seen += number
            if number and 2 * seen >= self.count:
                return float(SHORTEST_S * 10 ** (index / PER_DECADE))
        return None


@dataclass
class Outcomes:
    """Of one revision, since a stage of a rollout began."""

    answered: int = 0
    failed: int = 0
    """5xx answers and cut streams; what a caller did wrong is no outcome of a revision."""
    first_token: Histogram = field(default_factory=Histogram)
    per_token: Histogram = field(default_factory=Histogram)

    @property
    def view(self) -> OutcomeView:
        return OutcomeView(
            answered=self.answered,
            failed=self.failed,
            streams=self.first_token.count,
            first_token_s=self.first_token.median_s,
            timed=self.per_token.count,
            per_token_s=self.per_token.median_s,
        )
