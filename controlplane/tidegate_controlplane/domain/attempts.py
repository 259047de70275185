"""What is remembered of the runs of one request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

MAX_ATTEMPTS_KEPT = 20
"""The newest: a request that is redriven again and again does not grow."""


def with_attempt(
    known: Sequence[dict[str, Any]] | None,
    *,
    attempt: int,
    began_at: datetime | None,
    ended_at: datetime,
    replica_id: str | None,
    error: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """`known` and one more, which ended with `error` or, when that is None, with an answer."""
    ended = {
        "attempt": attempt,
        "started_at": int(began_at.timestamp()) if began_at else None,
        "ended_at": int(ended_at.timestamp()),
        "replica_id": replica_id,
        "error": error,
    }
    return [*(known or []), ended][-MAX_ATTEMPTS_KEPT:]
