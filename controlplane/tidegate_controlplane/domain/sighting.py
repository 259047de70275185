"""Whether somebody else still lives, judged by the change of what it shows.

What does not change for a lease of *our* monotonic time is lost. Wall clocks are not asked, so one
that jumps loses nothing and keeps nothing; and one who was paused judges nobody by the time that it
missed, since what it looks at has changed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True)
class Sighting(Generic[V]):
    """What was seen, and when it was first seen just so (monotonic seconds)."""

    value: V
    since_s: float


def observe(before: Sighting[V] | None, value: V, now_s: float) -> Sighting[V]:
    """What is known now; a value that changed begins anew."""
    if before is not None and before.value == value:
        return before
    return Sighting(value, now_s)


def is_lost(sighting: Sighting[V], now_s: float, lease_s: float) -> bool:
    """Whether it has not changed for a lease."""
    return now_s - sighting.since_s >= lease_s
