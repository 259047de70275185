"""How many replicas there should be, and why. A pure function, so that a trace can be replayed.

Three things call for replicas: the rate at which work arrives, set against what one replica was
seen to finish; the backlog, set against what the replicas that run or start will have taken up by
the time at which another one could help; and a KV cache that is full. What nothing calls for any
more is kept while that is cheaper than a cold start (`domain.keep_alive`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain, repeat
from typing import Any

from tidegate_controlplane.domain.capacity import ASSUMED_REQUEST_S

HEADROOM = 1.25
"""Spare slots, in square roots of those in use: enough that few requests wait (Halfin and Whitt,
1981). A large deployment needs relatively less of it than a small one, which a fixed share misses.
"""
LATE_SHARE = 0.25
"""Of the time that a backlog may last, left to one that has lasted longer: four times the replicas,
and not any number of them, for what is late already.
"""
FULL_KV = 0.9
"""Share of a KV cache in use at which requests that wait in the replica wait for memory."""


@dataclass(frozen=True)
class Bounds:
    """What the declaration allows, resolved for this moment."""

    min_replicas: int
    max_replicas: int
    target_in_flight: int | None
    """Declared requests on one replica that call for another; None to go by what is learned."""
    idle_timeout_s: float
    clear_s: float
    """Seconds that a backlog may last once the replicas called for are ready."""
    scheduled_min: int = 0
    """What the schedule asks for now."""


@dataclass(frozen=True)
class Signals:
    """What is asked of a deployment at this moment, and what its replicas can do."""

    in_flight: int
    """Requests now on replicas, durable ones included."""
    held: int
    """Requests that wait for a replica."""
    queued: int
    """Durable requests that wait to be claimed."""
    idle_s: float | None
    """Seconds since the last activity; None when there was none since this process began."""
    ready: int
    starting: tuple[float, ...]
    """For each replica that starts, the seconds until it is expected to be ready."""
    cold_start_s: float
    """What a replica that is requested now is expected to take."""
    slots: float
    """Requests that one replica runs at once."""
    arrivals_per_s: float = 0.0
    """0 where work is pulled from a queue: it arrives as fast as it is served."""
    tokens_per_request: float = 0.0
    """Prompt and output, on average; 0 while nothing is counted."""
    held_tokens: int = 0
    queued_tokens: int = 0
    oldest_queued_s: float = 0.0
    """How long the oldest durable request waits already."""
    tokens_per_s: float | None = None
    """What one replica finishes with every slot taken; None before that was learned."""
    kv_used: float = 0.0
    """Share of the fullest replica's KV cache in use."""
    kv_waiting: int = 0
    """Requests that wait inside replicas."""
    kept: int = 0
    """Replicas that are worth keeping."""

    @property
    def work(self) -> int:
        """Requests that are not finished."""
        return self.in_flight + self.held + self.queued

    @property
    def live(self) -> int:
        """Replicas ready or starting."""
        return self.ready + len(self.starting)

    @property
    def requests_per_s(self) -> float:
        """What one replica finishes with every slot taken, by requests as long as the recent ones.

        Assumed to be one in each slot every ten seconds before anything was learned.
        """
        if self.tokens_per_s is None or not self.tokens_per_request:
            return self.slots / ASSUMED_REQUEST_S
        return self.tokens_per_s / self.tokens_per_request

    @property
    def requests(self) -> float:
        """The work in requests of average length: a long one that waits counts for several."""
        if not self.tokens_per_request:
            return float(self.work)
        return (
            self.in_flight
            + max(self.queued, self.queued_tokens / self.tokens_per_request)
            + max(self.held, self.held_tokens / self.tokens_per_request)
        )


class Term(StrEnum):
    """Which consideration decided."""

    WORK = "work"
    ARRIVALS = "arrivals"
    BACKLOG = "backlog"
    KV_CACHE = "kv_cache"
    KEPT = "kept"
    IDLE_GRACE = "idle_grace"
    IDLE = "idle"
    MINIMUM = "minimum"
    SCHEDULE = "schedule"
    MAXIMUM = "maximum"


@dataclass(frozen=True)
class Decision:
    """The outcome, with its inputs, so that each step can be explained and replayed later."""

    desired: int
    called_for: int
    """Replicas that the work alone calls for."""
    term: Term
    bounds: Bounds
    signals: Signals

    @property
    def inputs(self) -> dict[str, Any]:
        """All that it was made from, for a record in JSON."""
        return {"bounds": asdict(self.bounds), "signals": asdict(self.signals)}

    @property
    def sentence(self) -> str:
        noun = "replica" if self.desired == 1 else "replicas"
        why = _WHY[self.term].format(s=self.signals, b=self.bounds, n=self.called_for)
        return f"{self.desired} {noun}: {why}"


_COUNTS = "{s.in_flight} in flight, {s.held} held, {s.queued} queued"
_WHY = {
    Term.WORK: _COUNTS,
    Term.ARRIVALS: (
        "{s.arrivals_per_s:.2f} requests a second, where one replica finishes "
        "{s.requests_per_s:.2f}"
    ),
    Term.BACKLOG: f"{_COUNTS}, to be served {{b.clear_s:.0f}} s after a cold start",
    Term.KV_CACHE: "{s.kv_waiting} wait in replicas, {s.kv_used:.0%} of whose KV cache is used",
    Term.KEPT: "work calls for {n}, and another start would soon cost more than keeping them",
    Term.IDLE_GRACE: "idle for {s.idle_s:.0f} s, less than the {b.idle_timeout_s:.0f} s it is kept",
    Term.IDLE: "nothing in flight or queued, and the {b.idle_timeout_s:.0f} s it is kept are over",
    Term.MINIMUM: "the declared minimum",
    Term.SCHEDULE: "the minimum that the schedule asks for now",
    Term.MAXIMUM: "the declared maximum, where {s.work} requests of work call for {n}",
}


def decide(bounds: Bounds, signals: Signals) -> Decision:
    """Replicas for the work at hand; down only to what is neither needed nor worth keeping.

    Never below one while anything is in flight, held or queued; never zero before the idle timeout;
    never outside the bounds. Replicas that start are counted with what they will have taken up, so
    a backlog that grows during a cold start calls for no more of them.
    """
    called_for, term = _called_for(bounds, signals)
    wanted = called_for
    kept = min(signals.kept, signals.live)
    if kept > wanted:
        wanted, term = kept, Term.KEPT
    if not signals.work:
        wanted, term = _idle(bounds, signals, wanted, term)
    low = max(bounds.min_replicas, min(bounds.scheduled_min, bounds.max_replicas))
    if wanted > bounds.max_replicas:
        wanted, term = bounds.max_replicas, Term.MAXIMUM
    if wanted < low:
        wanted, term = low, Term.MINIMUM if low == bounds.min_replicas else Term.SCHEDULE
    return Decision(wanted, called_for, term, bounds, signals)


def _idle(bounds: Bounds, signals: Signals, wanted: int, term: Term) -> tuple[int, Term]:
    if signals.idle_s is None or signals.idle_s >= bounds.idle_timeout_s:
        return 0, Term.IDLE
    return (wanted, term) if wanted > 1 else (1, Term.IDLE_GRACE)


def _called_for(bounds: Bounds, signals: Signals) -> tuple[int, Term]:
    """The largest of what work calls for; the earlier one of equals is the reason."""
    if bounds.target_in_flight is not None:
        return math.ceil(signals.work / bounds.target_in_flight), Term.WORK
    calls = (
        (1 if signals.work else 0, Term.WORK),
        (_for_backlog(bounds, signals), Term.BACKLOG),
        (_for_arrivals(signals), Term.ARRIVALS),
        (_for_kv_cache(signals), Term.KV_CACHE),
    )
    return max(calls, key=lambda call: call[0])


def _for_arrivals(signals: Signals) -> int:
    """Enough slots for what arrives, and the square root of those on top.

    One replica is called for by the work itself, so a trickle between two requests is no call.
    """
    if signals.tokens_per_s is None or not signals.tokens_per_request:
        return 0
    used = signals.arrivals_per_s / signals.requests_per_s * signals.slots
    count = math.ceil((used + HEADROOM * math.sqrt(used)) / signals.slots - 1e-9)
    return count if count > 1 else 0


def _for_backlog(bounds: Bounds, signals: Signals) -> int:
    """The fewest replicas, those ready soonest first, that will have taken up all work in time.

    In time is `clear_s` after a replica that is requested now would be ready, less what the oldest
    request in the queue has waited already. Until then each takes up what fills its slots, and what
    it finishes from the moment at which it is ready.
    """
    if not signals.work:
        return 0
    clear_s = max(bounds.clear_s * LATE_SHARE, bounds.clear_s - signals.oldest_queued_s)
    by_s = signals.cold_start_s + clear_s
    to_do = signals.requests + signals.arrivals_per_s * by_s
    rate = signals.requests_per_s
    etas = chain(repeat(0.0, signals.ready), sorted(signals.starting))
    count = 0
    for eta_s in etas:
        if to_do <= 0:
            return count
        to_do -= signals.slots + rate * max(0.0, by_s - eta_s)
        count += 1
    return count + max(0, math.ceil(to_do / (signals.slots + rate * clear_s) - 1e-9))


def _for_kv_cache(signals: Signals) -> int:
    """One more where requests wait for memory and none is coming."""
    full = signals.kv_used >= FULL_KV and signals.kv_waiting > 0
    return signals.ready + 1 if full and not signals.starting else 0
