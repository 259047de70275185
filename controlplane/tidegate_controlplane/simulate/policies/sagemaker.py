"""SageMaker's target tracking on `InvocationsPerInstance`, as its documentation has it.

One data point a minute. The scale-out alarm takes 3 of 3 minutes above the target, the scale-in
alarm 15 of 15 below 90 % of it; each has a cooldown of 300 s. The capacity becomes what would bring
the metric to the target. The target is half of what one instance can take, the safety factor that
the guide to load tests begins with; the caller says what one can take.

A real-time endpoint keeps one instance, and here it does. One that is brought to zero by a separate
step policy answers errors until an instance is up, which is why the comparison is not made there.
"""

from __future__ import annotations

import math
from collections import deque

from tidegate_controlplane.simulate.policies.base import Observed

PERIOD_S = 60.0
OUT_PERIODS = 3
IN_PERIODS = 15
IN_SHARE = 0.9
COOLDOWN_S = 300.0
SAFETY = 0.5


class SageMaker:
    """`per_minute` is how many requests one replica can finish in a minute."""

    name = "sagemaker"
    interval_s = PERIOD_S
    minimum = 1

    def __init__(self, per_minute: float) -> None:
        self._target = per_minute * SAFETY
        self._points: deque[float] = deque(maxlen=IN_PERIODS)
        self._arrivals = 0
        self._changed_s = -COOLDOWN_S

    def desired(self, seen: Observed) -> int:
        if seen.now_s == 0.0 or not seen.ready:
            return max(self.minimum, seen.desired)
        came, self._arrivals = seen.arrivals - self._arrivals, seen.arrivals
        self._points.append(came / seen.ready)
        if seen.now_s - self._changed_s < COOLDOWN_S:
            return seen.desired
        wanted = max(self.minimum, math.ceil(seen.ready * self._points[-1] / self._target))
        if self._breached(OUT_PERIODS, above=True):
            return self._changed(max(wanted, seen.desired), seen)
        if self._breached(IN_PERIODS, above=False):
            return self._changed(min(wanted, seen.desired), seen)
        return seen.desired

    def _breached(self, periods: int, *, above: bool) -> bool:
        """Whether every one of the last minutes is on the alarm's side."""
        recent = list(self._points)[-periods:]
        if len(recent) < periods:
            return False
        if above:
            return all(point > self._target for point in recent)
        return all(point < self._target * IN_SHARE for point in recent)

    def _changed(self, wanted: int, seen: Observed) -> int:
        if wanted != seen.desired:
            self._changed_s = seen.now_s
        return wanted
