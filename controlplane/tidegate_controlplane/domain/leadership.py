"""Who of several control planes reconciles, as the row that they share says.

The row names an owner, an epoch that each takeover raises, and a beat that its owner raises. A
leader is lost when its claim has not changed for a lease (`domain.sighting`). Being wrong costs a
takeover, never a double write: each write of a leader lands only while its epoch is the row's
(Kleppmann, "How to do distributed locking": fencing tokens).
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_controlplane.domain.sighting import Sighting, is_lost


@dataclass(frozen=True)
class Claim:
    """What the row says."""

    owner: str
    """Empty when the last leader stepped down."""
    epoch: int
    beat: int


def may_take_over(sighting: Sighting[Claim], now_s: float, lease_s: float) -> bool:
    """Whether there is no leader, or one that was not heard of for a lease."""
    return not sighting.value.owner or is_lost(sighting, now_s, lease_s)
