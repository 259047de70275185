"""Rows of durable requests: the queue, as those who ask see it.

How rows are claimed is in `store.claims`, what becomes of claimed ones in `store.leases`, what ends
unclaimed in `store.endings`, how much waits in `store.backlog`.
"""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.store.leases import RUNNING, Lease, Q, change
from tidegate_controlplane.store.tables import FAR, Invocation

LINE_PRIORITY = 10
"""Of the lines of a batch; an invocation on its own has 0, and runs before them."""


def insert(session: Session, row: Invocation) -> None:
    session.add(row)


def get(session: Session, project_id: str, invocation_id: str) -> Invocation | None:
    """One that was submitted alone; the lines of a batch are seen through the batch."""
    row = session.get(Invocation, invocation_id)
    if row is None or row.project_id != project_id or row.batch_id is not None:
        return None
    return row


def by_key(session: Session, project_id: str, idempotency_key: str) -> Invocation | None:
    return session.exec(
        select(Invocation).where(
            Invocation.project_id == project_id, Invocation.idempotency_key == idempotency_key
        )
    ).first()


def release_key(session: Session, row: Invocation) -> None:
    """Let the row's idempotency key be used again."""
    row.idempotency_key = None
    session.add(row)
    session.flush()


def page(
    session: Session,
    project_id: str,
    *,
    after: str | None,
    limit: int,
    status: InvocationState | None = None,
    model: str | None = None,
) -> list[Invocation]:
    """At most `limit` invocations (no batch lines), newest first, those older than `after`."""
    query = select(Invocation).where(
        Invocation.project_id == project_id, col(Invocation.batch_id).is_(None)
    )
    if after is not None:
        query = query.where(Invocation.id < after)
    if status is not None:
        query = query.where(Invocation.status == status.value)
    if model is not None:
        query = query.where(Invocation.model == model)
    return list(session.exec(query.order_by(col(Invocation.id).desc()).limit(limit)))


def cancel(session: Session, row: Invocation, now: datetime) -> bool:
    """Cancel a queued row now, mark a running one; False when it is neither any more."""
    lease = Lease.of(row)
    if row.status == Q:
        return change(session, lease, Q, InvocationState.CANCELED, finished_at=now)
    return change(session, lease, RUNNING, RUNNING, cancel_requested=True)


def redrive(session: Session, row: Invocation, deployment_id: str, now: datetime) -> bool:
    """Queue what failed or died anew, with all its attempts and as much time as at first.

    False when somebody else did, or its request is no longer kept.
    Its epoch is raised, so that no event of before is taken for one of after.
    """
    forgotten = select(Invocation.id).where(
        Invocation.id == row.id, col(Invocation.forgotten_at).is_not(None)
    )
    if session.exec(forgotten).first() is not None:
        return False
    later = now - row.created_at
    return change(
        session,
        Lease.of(row),
        InvocationState(row.status),
        Q,
        deployment_id=deployment_id,
        lease_epoch=row.lease_epoch + 1,
        attempt=0,
        available_at=now,
        delayed=False,
        started_at=None,
        claimed_at=None,
        finished_at=None,
        forget_at=None,
        cancel_requested=False,
        expires_at=row.expires_at and row.expires_at + later,
        due_at=row.expires_at + later if row.expires_at else FAR,
        deadline_at=row.deadline_at and row.deadline_at + later,
    )


def redrivable(
    session: Session,
    project_id: str,
    status: InvocationState,
    model: str | None,
    *,
    after: str | None,
    since: datetime,
    limit: int,
) -> list[Invocation]:
    """At most `limit` invocations that ended as `status` after `since`, the oldest first."""
    query = select(Invocation).where(
        Invocation.project_id == project_id,
        col(Invocation.batch_id).is_(None),
        Invocation.status == status.value,
        col(Invocation.finished_at) > since,
        col(Invocation.forgotten_at).is_(None),
    )
    if after is not None:
        query = query.where(Invocation.id > after)
    if model is not None:
        query = query.where(Invocation.model == model)
    return list(session.exec(query.order_by(col(Invocation.id)).limit(limit)))
