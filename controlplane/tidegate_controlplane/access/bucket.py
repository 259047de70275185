"""A token bucket, as values: it holds a minute's worth and fills steadily.

It may go below zero, when work turned out larger than could be known before it was done; whoever
comes next waits until it is positive again. (Source: the token bucket of RFC 2697, one rate.)
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S = 60.0
ROUNDING = 1e-6
"""Units that are missing only because floats round: whoever waited as told is let in."""


@dataclass(frozen=True)
class Bucket:
    """`level` units at the moment `at` (monotonic seconds)."""

    per_minute: int
    """How much it holds, and how much flows in within a minute."""
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        return cls(per_minute, float(per_minute), now)

    def filled(self, now: float) -> Bucket:
        """The bucket at `now`; time that runs backwards adds nothing."""
        elapsed_s = max(0.0, now - self.at)
        level = min(float(self.per_minute), self.level + elapsed_s * self.per_minute / MINUTE_S)
        return Bucket(self.per_minute, level, max(self.at, now))

    def taken(self, amount: float, now: float) -> Bucket:
        """The bucket after `amount` was taken, whether it held that much or not."""
        bucket = self.filled(now)
        return Bucket(bucket.per_minute, bucket.level - amount, bucket.at)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until it holds `amount` (at most what it can hold); 0 when it does."""
        missing = min(amount, float(self.per_minute)) - self.filled(now).level
        return missing * MINUTE_S / self.per_minute if missing > ROUNDING else 0.0

    def remaining(self, now: float) -> int:
        """Whole units left, never below zero."""
        return max(0, int(self.filled(now).level))

    def full_in_s(self, now: float) -> float:
        """Seconds until it is full again, when nobody takes from it."""
        return self.wait_s(float(self.per_minute), now)
