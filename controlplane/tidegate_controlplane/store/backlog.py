"""How much durable work waits, for the autoscaler: a look that costs the same at any length.

What is counted is the COUNTED oldest requests of a deployment, and a longer queue is known to be
at least that long; no autoscaler needs to know more (`docs/decisions/072`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.store.tables import Invocation

COUNTED = 5000


@dataclass(frozen=True)
class Backlog:
    """Unfinished work of one deployment."""

    queued: int
    """At most COUNTED."""
    queued_tokens: int
    """Prompts and expected outputs of those."""
    running: int
    oldest_s: float
    """Age of the oldest queued request; 0 when none is queued."""


def backlog(session: Session, now: datetime) -> dict[str, Backlog]:
    """Unfinished work by deployment id, whether due already or still backing off."""
    return {
        deployment_id: _of(session, deployment_id, now) for deployment_id in _deployments(session)
    }


def _deployments(session: Session) -> list[str]:
    found: list[str] = []
    while True:
        query = select(func.min(Invocation.deployment_id)).where(
            col(Invocation.finished_at).is_(None),
            col(Invocation.deployment_id) > (found[-1] if found else ""),
        )
        if (following := session.exec(query).one()) is None:
            return found
        found.append(following)


def _of(session: Session, deployment_id: str, now: datetime) -> Backlog:
    queued, tokens, oldest = _count(session, deployment_id, InvocationState.QUEUED)
    running, _, _ = _count(session, deployment_id, InvocationState.RUNNING)
    age_s = max(0.0, (now - oldest) / timedelta(seconds=1)) if oldest else 0.0
    return Backlog(queued, tokens, running, age_s)


def _count(
    session: Session, deployment_id: str, state: InvocationState
) -> tuple[int, int, datetime | None]:
    """Number, tokens and first creation of the oldest; from the index alone."""
    oldest = (
        select(col(Invocation.created_at), col(Invocation.tokens))
        .where(
            col(Invocation.finished_at).is_(None),
            Invocation.deployment_id == deployment_id,
            Invocation.status == state.value,
        )
        .order_by(col(Invocation.created_at))
        .limit(COUNTED)
        .subquery()
    )
    query = select(
        func.count(), func.coalesce(func.sum(oldest.c.tokens), 0), func.min(oldest.c.created_at)
    ).select_from(oldest)
    number, tokens, first = session.exec(query).one()
    return number, int(tokens), first
