"""How long what is finished is kept."""

from __future__ import annotations

from datetime import datetime, timedelta


def forget_at(finished_at: datetime, ttl_s: float | None, retention_s: float) -> datetime:
    """When the body and the result go: after the row's own time, at most the platform's."""
    return finished_at + timedelta(seconds=min(retention_s, ttl_s or retention_s))


def is_orphan_for_long(first_seen: float, now: float, grace_s: float) -> bool:
    """Both in monotonic seconds of one process, so that a clock that jumps deletes nothing.

    Whoever stores an object inserts its row within half of `grace_s`, or not at all.
    """
    return now - first_seen >= grace_s


def may_insert(stored_at: float, now: float, grace_s: float) -> bool:
    """Whether an object that was stored at `stored_at` is surely still there (monotonic)."""
    return now - stored_at < grace_s / 2
