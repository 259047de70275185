"""Ray Serve's request-based autoscaler, after `serve/autoscaling_policy.py`.

Ongoing requests, queued ones among them, averaged over `look_back_period_s` (30 s) and divided by
`target_ongoing_requests`. A decision counts once it was the same direction for `upscale_delay_s`
(30 s) or `downscale_delay_s` (600 s) in a row; the smoothing factors are 1. At zero the first
request starts one replica at once and waits at the proxy; to zero it goes only from one.

`target_ongoing_requests` is 2 by default, which suits no replica with sixteen slots. Its guide has
`max_ongoing_requests` 20 to 50 % above the target, so the target here is the slots over 1.25.
"""

from __future__ import annotations

import math

from tidegate_controlplane.simulate.policies.base import Mean, Observed

LOOK_BACK_S = 30.0
UPSCALE_DELAY_S = 30.0
DOWNSCALE_DELAY_S = 600.0
MAX_OVER_TARGET = 1.25


class RayServe:
    """A decision each second, where Ray takes ten; the delays are the same."""

    name = "ray-serve"
    interval_s = 1.0
    minimum = 0

    def __init__(self) -> None:
        self._ongoing = Mean(LOOK_BACK_S)
        self._above_since_s: float | None = None
        self._below_since_s: float | None = None

    def desired(self, seen: Observed) -> int:
        self._ongoing.see(seen.now_s, seen.request_s)
        if not seen.ready:
            return max(1, seen.desired) if seen.held else seen.desired
        target = seen.slots / MAX_OVER_TARGET
        wanted = math.ceil(self._ongoing.over(LOOK_BACK_S) / target)
        if wanted < seen.desired and seen.desired > 1:
            wanted = max(1, wanted)
        return self._delayed(wanted, seen)

    def _delayed(self, wanted: int, seen: Observed) -> int:
        """The wanted count once its direction has lasted for the delay; the present one before."""
        now_s, present = seen.now_s, seen.desired
        self._above_since_s = _since(self._above_since_s, now_s, holds=wanted > present)
        self._below_since_s = _since(self._below_since_s, now_s, holds=wanted < present)
        for since_s, delay_s in (
            (self._above_since_s, UPSCALE_DELAY_S),
            (self._below_since_s, DOWNSCALE_DELAY_S),
        ):
            if since_s is not None and now_s - since_s >= delay_s:
                self._above_since_s = self._below_since_s = None
                return wanted
        return present


def _since(began_s: float | None, now_s: float, *, holds: bool) -> float | None:
    if not holds:
        return None
    return now_s if began_s is None else began_s
