"""How fast a batch goes, and whether it will be in time.

Everything is taken from rows of lines that ended, so it survives whoever counted. A rate is of the
last minute: an average since the beginning would still speak of a cold start hours later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tidegate.protocol.batch import BatchProgress

WINDOW_S = 60.0


@dataclass(frozen=True)
class Tally:
    """How lines ended, and what those that were answered took."""

    succeeded: int = 0
    failed: int = 0
    """All the others that ended."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    replica_s: float = 0.0

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed

    def without(self, unreadable: int) -> Tally:
        """The same, when so many answers cannot be read back: their lines count as failed."""
        return replace(self, succeeded=self.succeeded - unreadable, failed=self.failed + unreadable)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Span:
    """The life of a batch's lines, as far as it is known."""

    began: datetime
    ended: datetime | None
    due: datetime

    def rate_window_s(self, now: datetime) -> float:
        """Seconds that a rate is taken over: the last ones; of an ended batch, all."""
        if self.ended is not None:
            return max(1.0, (self.ended - self.began).total_seconds())
        return min(WINDOW_S, max(1.0, (now - self.began).total_seconds()))


def progress(
    all_of_it: Tally,
    recent: Tally,
    total: int,
    span: Span,
    now: datetime,
    replica_usd_per_hour: float | None = None,
) -> BatchProgress:
    """`recent` is what ended within `span.rate_window_s(now)`.

    `replica_usd_per_hour` is None where a replica costs nothing.
    """
    window_s = span.rate_window_s(now)
    lines_per_s = recent.ended / window_s
    completes_at = _completes_at(total - all_of_it.ended, lines_per_s, span, now)
    return BatchProgress(
        window_s=round(window_s, 3),
        lines_per_s=round(lines_per_s, 3),
        tokens_per_s=round(recent.tokens / window_s, 3),
        completes_at=None if completes_at is None else int(completes_at.timestamp()),
        in_time=None if completes_at is None else completes_at <= span.due,
        replica_s=round(all_of_it.replica_s, 3),
        cost_usd=None
        if replica_usd_per_hour is None
        else round(all_of_it.replica_s * replica_usd_per_hour / 3600, 6),
    )


def _completes_at(left: int, lines_per_s: float, span: Span, now: datetime) -> datetime | None:
    if span.ended is not None:
        return span.ended
    if left <= 0:
        return now
    if not lines_per_s:
        return None
    # A rate near nothing would lead beyond the last date there is.
    return now + timedelta(seconds=min(left / lines_per_s, timedelta(days=3650).total_seconds()))


def replica_share_s(elapsed_s: float, replicas: int, in_flight: int) -> float:
    """What a request that ran for `elapsed_s` took of `replicas` that it shared with others.

    Over all requests this sums to the time that the replicas were busy, each counted once.
    """
    return elapsed_s * max(1, replicas) / max(1, in_flight)
