"""Knative's pod autoscaler (KPA) on concurrency, after serving's `autoscaler.go` and `scaler.go`.

Defaults of `config-autoscaler`: a stable window of 60 s and a panic window of 10 % of it, panic
from twice the ready capacity on and until it has been over for a stable window, at most a
thousandfold up and a half down at a time, a decision every 2 s, 70 % of the container's concurrency
as target. While it panics nothing goes down. At zero the activator holds requests and counts them.

To zero: after a stable window without requests, and the grace period on top only where the
activator was not in the path before, which it always is while the spare capacity is below `target-
burst-capacity` (211).
"""

from __future__ import annotations

import math

from tidegate_controlplane.simulate.policies.base import Mean, Observed

STABLE_WINDOW_S = 60.0
PANIC_WINDOW_S = 6.0
PANIC_THRESHOLD = 2.0
MAX_SCALE_UP = 1000.0
MAX_SCALE_DOWN = 2.0
TARGET_UTILIZATION = 0.7
GRACE_S = 30.0
TARGET_BURST_CAPACITY = 211.0


class KnativeKpa:
    """`containerConcurrency` is the number of slots."""

    name = "knative-kpa"
    interval_s = 2.0
    minimum = 0

    def __init__(self) -> None:
        self._concurrency = Mean(STABLE_WINDOW_S)
        self._panic_s: float | None = None
        self._panic_pods = 0
        self._quiet_s: float | None = None

    def desired(self, seen: Observed) -> int:
        self._concurrency.see(seen.now_s, seen.request_s)
        if not seen.ready and not seen.starting_ages_s:
            # From zero the activator reports at once, without waiting for a window.
            return 1 if seen.held else 0
        wanted = self._scaled(seen)
        if wanted:
            self._quiet_s = None
            return wanted
        return self._to_zero(seen)

    def _scaled(self, seen: Observed) -> int:
        ready = max(1.0, seen.ready)
        target = seen.slots * TARGET_UTILIZATION
        up, down = math.ceil(MAX_SCALE_UP * ready), math.floor(ready / MAX_SCALE_DOWN)
        stable_call = math.ceil(self._concurrency.over(STABLE_WINDOW_S) / target)
        panic_call = math.ceil(self._concurrency.over(PANIC_WINDOW_S) / target)
        stable, panic = (min(max(call, down), up) for call in (stable_call, panic_call))
        self._note_panic(seen.now_s, over=panic_call / ready >= PANIC_THRESHOLD)
        if self._panic_s is None:
            return stable
        self._panic_pods = max(self._panic_pods, stable, panic)
        return self._panic_pods

    def _note_panic(self, now_s: float, *, over: bool) -> None:
        if over:
            self._panic_s = now_s
        elif self._panic_s is not None and now_s - self._panic_s > STABLE_WINDOW_S:
            self._panic_s, self._panic_pods = None, 0

    def _to_zero(self, seen: Observed) -> int:
        """One until nothing came for the grace period; none at once behind the activator."""
        if self._quiet_s is None:
            self._quiet_s = seen.now_s
        behind = seen.ready * seen.slots < TARGET_BURST_CAPACITY
        return 0 if behind or seen.now_s - self._quiet_s >= GRACE_S else 1
