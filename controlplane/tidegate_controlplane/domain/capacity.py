"""What one replica carries, learned from what was seen.

A step of continuous batching takes longer the more sequences it serves, nearly in a straight line:
the weights are read once for all of them, keys and values for each. So seconds per token are fitted
as `base + slope · in_flight` by least squares in which older samples fade, and a replica with every
slot taken finishes `slots / (base + slope · slots)` tokens a second. At part load this predicts
what fewer replicas would carry, where the rate of finished tokens would only repeat the demand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MEMORY_S = 600.0
"""Samples fade by half in about seven minutes: e^-1 after this many seconds of work."""
ENOUGH_S = 10.0
"""Busy seconds after which what was learned is believed."""
RECOVERY_S = 300.0
"""After a full KV cache, the number of sequences carried rises back to the slots in this time."""
ASSUMED_REQUEST_S = 10.0
"""What a request is taken to last in its slot before anything was learned."""


@dataclass(frozen=True)
class Sample:
    """A stretch of time in which requests were on replicas."""

    seconds: float
    in_flight: float
    """Mean, on one replica."""
    tokens: float
    """Finished, on one replica."""


@dataclass(frozen=True)
class Capacity:
    """Sums of a fit, and the sequences that the KV cache held when it was last full."""

    weight: float = 0.0
    sum_n: float = 0.0
    sum_y: float = 0.0
    sum_nn: float = 0.0
    sum_ny: float = 0.0
    carried: float | None = None
    """Sequences that one replica ran while others waited for room; None when none had to."""

    def learn(self, sample: Sample) -> Capacity:
        """With one more sample; one without work or tokens teaches nothing."""
        if sample.in_flight <= 0.0 or sample.tokens <= 0.0 or sample.seconds <= 0.0:
            return self
        fade, n = max(0.0, 1.0 - sample.seconds / MEMORY_S), sample.in_flight
        y = n * sample.seconds / sample.tokens
        weight = sample.seconds * min(1.0, n)
        return replace(
            self,
            weight=self.weight * fade + weight,
            sum_n=self.sum_n * fade + weight * n,
            sum_y=self.sum_y * fade + weight * y,
            sum_nn=self.sum_nn * fade + weight * n * n,
            sum_ny=self.sum_ny * fade + weight * n * y,
        )

    def pressed(self, running: float, waiting: int, slots: int, seconds: float) -> Capacity:
        """After `seconds` in which a replica ran `running` sequences and `waiting` had no room."""
        if waiting > 0:
            return replace(self, carried=max(1.0, running))
        if self.carried is None:
            return self
        risen = self.carried + slots * seconds / RECOVERY_S
        return replace(self, carried=risen if risen < slots else None)

    def slots(self, declared: int) -> float:
        """Sequences that one replica runs at once: the declared ones, fewer where KV runs out."""
        return float(declared) if self.carried is None else min(float(declared), self.carried)

    def tokens_per_s(self, slots: float) -> float | None:
        """Finished tokens of one replica with `slots` sequences; None before enough was seen."""
        if self.weight < ENOUGH_S:
            return None
        base, slope = self._line()
        return slots / (base + slope * slots)

    def _line(self) -> tuple[float, float]:
        """Seconds per token of one sequence: alone, and more for each beside it."""
        mean_n, mean_y = self.sum_n / self.weight, self.sum_y / self.weight
        variance = self.sum_nn / self.weight - mean_n * mean_n
        covariance = self.sum_ny / self.weight - mean_n * mean_y
        # One sequence of spread is the prior that there is no slope: little spread proves little.
        slope = min(max(0.0, covariance / (variance + 1.0)), mean_y / max(mean_n, 1.0))
        return max(mean_y - slope * mean_n, 0.05 * mean_y), slope
