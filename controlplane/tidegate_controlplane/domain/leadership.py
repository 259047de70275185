"""Who of several control planes reconciles, as the row that they share says.

The row names an owner, an epoch that each takeover raises, and a beat that its owner raises. A
leader is lost when its beat has not changed for a lease of *our* monotonic time: wall clocks are
not asked, and one who was paused judges nobody by the time it missed, since the beat has changed
meanwhile. Being wrong costs a takeover, never a double write: each write of a leader lands only
while its epoch is the row's (Kleppmann, "How to do distributed locking": fencing tokens).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What the row says."""

    owner: str
    """Empty when the last leader stepped down."""
    epoch: int
    beat: int


@dataclass(frozen=True)
class Sighting:
    """A claim, and when it was first seen just so (monotonic seconds)."""

    claim: Claim
    since_s: float


def observe(before: Sighting | None, claim: Claim, now_s: float) -> Sighting:
    """What is known of the leader now; a claim that changed begins anew."""
    if before is not None and before.claim == claim:
        return before
    return Sighting(claim, now_s)


def may_take_over(sighting: Sighting, now_s: float, lease_s: float) -> bool:
    """Whether there is no leader, or one that was not heard of for a lease."""
    return not sighting.claim.owner or now_s - sighting.since_s >= lease_s
