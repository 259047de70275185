"""When a replica that misbehaves is left out, and for how long.

After Envoy's outlier detection: failures in a row, a time that doubles with each ejection, and a
cap on the share of replicas that may be out at once, since a fault that all of them share is not
theirs. A replica that refuses connections is gone, and the cap is not for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FAILURES = 3
"""In a row, after which a replica is left out."""
BASE_S = 5.0
MOST_S = 60.0
MOST_SHARE = 0.5
"""Of the published replicas, out at once."""


@dataclass(frozen=True)
class Standing:
    """What a replica has made itself known for."""

    failures: int = 0
    """In a row."""
    ejections: int = 0
    """Since its last good answer."""
    until: float = -math.inf
    """Left out until then, on the monotonic clock."""

    def is_ejected(self, now: float) -> bool:
        return now < self.until

    @property
    def is_suspect(self) -> bool:
        return self.failures >= FAILURES

    def after_failure(self) -> Standing:
        return Standing(self.failures + 1, self.ejections, self.until)

    def after_ejection(self, now: float) -> Standing:
        """Out from `now` on. When it is back, its first failure puts it out again, for longer."""
        out_s = min(MOST_S, BASE_S * 2**self.ejections)
        return Standing(FAILURES - 1, self.ejections + 1, now + out_s)


GOOD = Standing()
"""What one good answer restores."""


def may_eject(ejected: int, published: int, *, dead: bool) -> bool:
    """Whether one more may be left out beside `ejected` of `published` replicas."""
    return dead or ejected + 1 <= published * MOST_SHARE


def may_retry(retrying: int, in_flight: int, largest: int) -> bool:
    """Whether one more request may be given to a second replica.

    A fifth of what is in flight, so that a fault everywhere is not answered with twice the load
    (Finagle's retry budget); and always as many as the largest replica takes, so that the loss of
    one replica fails nobody.
    """
    return retrying < max(3, largest, in_flight // 5)
