"""The replicas of one revision, by what a step asks about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import ReplicaPhase
from tidegate_controlplane.domain.replicas import NO_CAPACITY, NODE_LOST
from tidegate_controlplane.domain.rollout import Side

P = ReplicaPhase
LIVE = frozenset({P.REQUESTED, P.STARTING, P.LOADING, P.READY})
STARTING = LIVE - {P.READY}
STABLE_S = 60.0
"""A replica that was ready for this long and then failed starts the count of failures anew."""
HOPELESS_FAILURES = 3
"""Failed starts in a row after which held requests are told instead of held on."""


@dataclass(frozen=True)
class ReplicaFact:
    """A replica's row, after its process was looked at."""

    id: str
    revision_id: str
    phase: ReplicaPhase
    in_flight: int = 0
    refused: bool = False
    ready_for_s: float = 0.0
    """How long it was ready, or has been."""
    failed_ago_s: float | None = None
    reason: str | None = None
    message: str | None = None
    forgiven: bool = False
    """Its failure was before someone asked to try again."""

    @property
    def without_capacity(self) -> bool:
        """Whether its place had no capacity for it, which says nothing about the model."""
        return self.phase is P.FAILED and self.reason == NO_CAPACITY

    @property
    def is_blameless(self) -> bool:
        """Whether its place failed it, for lack of capacity or by a loss, and not the model."""
        return self.without_capacity or (self.phase is P.FAILED and self.reason == NODE_LOST)


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failure in a row: base · 2^(n-1), at most `max_s`."""

    base_s: float
    max_s: float

    def after(self, failures: int) -> float:
        return min(self.max_s, self.base_s * 2.0 ** (failures - 1)) if failures else 0.0


@dataclass(frozen=True)
class Group:
    """One revision's replicas, final ones included, in order of creation."""

    live: Sequence[ReplicaFact]
    failures: int
    """Failures in a row, the newest of them not forgiven; so many starts are backed off from."""
    crashes: int
    """Of these, without those that only found no capacity or lost their node."""
    last: ReplicaFact | None
    """The latest of these failures to happen."""
    retry_in_s: float | None
    """When the next start is due, while it is held back after failures."""

    @property
    def ready(self) -> int:
        return sum(r.phase is P.READY for r in self.live)

    @property
    def held_back(self) -> bool:
        """Whether no replica may be started now."""
        return self.retry_in_s is not None or (self.last is not None and self.last.refused)

    @property
    def lost(self) -> str | None:
        """Why another start will not help; None while there is hope."""
        if self.last is None or not (self.last.refused or self.crashes >= HOPELESS_FAILURES):
            return None
        return cause(self.last)

    @property
    def side(self) -> Side:
        return Side(live=len(self.live), ready=self.ready, lost=self.lost)

    def surplus(self, wanted: int) -> list[str]:
        """Those above `wanted`: not yet ready first, then the least busy, then the newest."""
        newest_first = list(reversed(self.live))
        newest_first.sort(key=lambda r: (r.phase is P.READY, r.in_flight))
        return [r.id for r in newest_first[: max(0, len(self.live) - wanted)]]


def group(replicas: Sequence[ReplicaFact], revision_id: str, backoff: Backoff) -> Group:
    """The replicas of a revision among those of its deployment."""
    own = [r for r in replicas if r.revision_id == revision_id]
    failures = consecutive_failures(own)
    last = min(failures, key=_failed_ago_s, default=None)
    return Group(
        live=[r for r in own if r.phase in LIVE],
        failures=len(failures),
        crashes=sum(not r.is_blameless for r in failures),
        last=last,
        retry_in_s=_retry_in(len(failures), last, backoff),
    )


def consecutive_failures(own: Sequence[ReplicaFact]) -> Sequence[ReplicaFact]:
    """Failures in a row of one revision, newest replica first.

    A replica that is ready now, ended well, or was ready for `STABLE_S` ends the row.
    """
    row: list[ReplicaFact] = []
    for replica in reversed(own):
        if replica.phase in STARTING:
            continue
        if replica.phase is not P.FAILED or replica.forgiven:
            break
        row.append(replica)
        if replica.ready_for_s >= STABLE_S:
            break
    return row


def cause(failed: ReplicaFact) -> str:
    """Why it failed, in a sentence."""
    return f"{failed.reason}: {failed.message}"


def _failed_ago_s(replica: ReplicaFact) -> float:
    return math.inf if replica.failed_ago_s is None else replica.failed_ago_s


def _retry_in(failures: int, last: ReplicaFact | None, backoff: Backoff) -> float | None:
    if last is None or last.failed_ago_s is None:
        return None
    remaining = backoff.after(failures) - last.failed_ago_s
    return remaining if remaining > 0 else None
