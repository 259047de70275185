"""Queued rows that end without having run, many at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, update
from sqlmodel import Session, col, select, text

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.domain.states import INVOCATION, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.tables import Invocation

BULK = 1000
"""Rows that one transaction changes at most, so that no writer waits long for another."""

_QUEUED = "status = 'queued'"
"""In so many words, as the indexes over a part of the table have it."""


def expire(session: Session, now: datetime) -> list[str]:
    """Expire what was not begun in time; returns the ids, at most BULK of them."""
    return _end_queued(session, InvocationState.EXPIRED, now, col(Invocation.expires_at) <= now)


def has_overdue(session: Session, now: datetime) -> bool:
    """Whether `expire` would find something."""
    query = select(Invocation.id).where(text(_QUEUED), col(Invocation.expires_at) <= now)
    return session.exec(query.limit(1)).first() is not None


def fail_queued(
    session: Session, deployment_id: str, now: datetime, error: dict[str, Any]
) -> list[str]:
    """Fail what waits for a deployment that will never serve it; at most BULK ids."""
    of_deployment = col(Invocation.deployment_id) == deployment_id
    return _end_queued(session, InvocationState.FAILED, now, of_deployment, error)


def end_lines(
    session: Session,
    batch_id: str,
    after: InvocationState,
    now: datetime,
) -> list[str]:
    """End the queued lines of a batch (at most BULK) and ask for the cancellation of running ones.

    Returns the ids of the running ones.
    """
    _end_queued(session, after, now, col(Invocation.batch_id) == batch_id)
    running = [
        col(Invocation.finished_at).is_(None),
        col(Invocation.batch_id) == batch_id,
        col(Invocation.status) == InvocationState.RUNNING.value,
    ]
    session.execute(
        update(Invocation)
        .where(*running)
        .values(cancel_requested=True)
        .execution_options(synchronize_session=False)
    )
    return list(session.exec(select(Invocation.id).where(*running)))


def _end_queued(
    session: Session,
    after: InvocationState,
    now: datetime,
    which: ColumnElement[bool],
    error: dict[str, Any] | None = None,
) -> list[str]:
    check_transition(INVOCATION, InvocationState.QUEUED, after)
    query = (
        select(Invocation.id)
        .where(text(_QUEUED), col(Invocation.finished_at).is_(None), which)
        .limit(BULK)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.exec(query))
    session.execute(
        update(Invocation)
        .where(col(Invocation.id).in_(ids))
        .values(status=after.value, finished_at=now, error=error)
        .execution_options(synchronize_session=False)
    )
    outbox.invocations_ended(session, ids)
    return ids
