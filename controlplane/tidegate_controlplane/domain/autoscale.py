"""How many replicas there should be, and why. A pure function, so that a trace can be replayed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Bounds:
    """What the declaration allows."""

    min_replicas: int
    max_replicas: int
    target_in_flight: int
    idle_timeout_s: float


@dataclass(frozen=True)
class Signals:
    """What is asked of a deployment at this moment."""

    in_flight: int
    """Requests now on replicas, durable ones included."""
    held: int
    """Requests that wait for a replica."""
    queued: int
    """Durable requests that wait to be claimed."""
    idle_s: float | None
    """Seconds since the last activity; None when there was none since this process began."""
    replicas: int
    """Replicas starting or ready now."""
    recent_peak: int = 0
    """The most replicas that work called for within the scale-down window."""

    @property
    def work(self) -> int:
        return self.in_flight + self.held + self.queued


class Term(StrEnum):
    """Which consideration decided."""

    WORK = "work"
    RECENT_PEAK = "recent_peak"
    IDLE_GRACE = "idle_grace"
    IDLE = "idle"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"


@dataclass(frozen=True)
class Decision:
    """The outcome, with its inputs, so that each step can be explained later."""

    desired: int
    called_for: int
    """Replicas that the work alone calls for."""
    term: Term
    signals: Signals

    @property
    def sentence(self) -> str:
        noun = "replica" if self.desired == 1 else "replicas"
        return f"{self.desired} {noun}: {_WHY[self.term].format(s=self.signals)}"


_WHY = {
    Term.WORK: "{s.in_flight} in flight, {s.held} held, {s.queued} queued",
    Term.RECENT_PEAK: "recent work called for {s.recent_peak}",
    Term.IDLE_GRACE: "idle for {s.idle_s:.0f} s, less than the idle timeout",
    Term.IDLE: "nothing in flight or queued, and the idle timeout has passed",
    Term.MINIMUM: "the declared minimum",
    Term.MAXIMUM: "the declared maximum, with {s.work} requests of work",
}


def decide(bounds: Bounds, signals: Signals) -> Decision:
    """Replicas for the work at hand; down only after the recent peak and the idle time.

    Never below one while anything is in flight, held or queued; never zero before the idle timeout.
    """
    called_for = math.ceil(signals.work / bounds.target_in_flight)
    in_grace = signals.idle_s is not None and signals.idle_s < bounds.idle_timeout_s
    wanted, term = called_for, Term.WORK
    if signals.recent_peak > wanted and signals.replicas > wanted:
        wanted, term = min(signals.recent_peak, signals.replicas), Term.RECENT_PEAK
    if signals.work == 0 and not in_grace:
        wanted, term = 0, Term.IDLE
    elif wanted == 0:
        wanted, term = 1, Term.IDLE_GRACE
    if wanted > bounds.max_replicas:
        wanted, term = bounds.max_replicas, Term.MAXIMUM
    if wanted < bounds.min_replicas:
        wanted, term = bounds.min_replicas, Term.MINIMUM
    return Decision(wanted, called_for, term, signals)
