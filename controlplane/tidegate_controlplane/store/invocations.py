"""Rows of durable requests: the queue.

A row is changed only by whoever saw it last: `WHERE id AND lease_epoch AND status`, zero rows
changed means stale, and the caller drops what it holds. A claim raises the epoch, so the result of
a lease that was lost can never land (Kleppmann, "How to do distributed locking": fencing tokens).

How rows are claimed is in `store.claims`, how much waits in `store.backlog`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, update
from sqlmodel import Session, col, select, text

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.domain.states import INVOCATION, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.swap import swapped
from tidegate_controlplane.store.tables import FAR, Invocation

BULK = 1000
"""Rows that one transaction changes at most, so that no writer waits long for another."""

LINE_PRIORITY = 10
"""Of the lines of a batch; an invocation on its own has 0, and runs before them."""

_QUEUED = "status = 'queued'"
"""In so many words, as the indexes over a part of the table have it."""

Q, RUNNING = InvocationState.QUEUED, InvocationState.RUNNING


@dataclass(frozen=True)
class Lease:
    """The right to change one running row; void once its epoch or state is another."""

    invocation_id: str
    epoch: int

    @classmethod
    def of(cls, row: Invocation) -> Lease:
        return cls(row.id, row.lease_epoch)


@dataclass(frozen=True)
class Held:
    """A lease as the table has it."""

    lease: Lease
    owner: str
    beat: int
    attempt: int
    max_attempts: int
    cancel_requested: bool
    claimed_at: datetime | None = None
    attempts: list[dict[str, Any]] | None = None
    """Those that ended; None of a line."""


@dataclass(frozen=True)
class Result:
    """An answer: its bytes, or the key of the object that holds them."""

    inline: bytes | None
    key: str | None
    prompt_tokens: int
    completion_tokens: int
    size_bytes: int | None = None
    """Of the answer, wherever it is."""
    cached_tokens: int = 0
    replica_s: float = 0.0


# --- one row --------------------------------------------------------------------------------------


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


# --- leases ---------------------------------------------------------------------------------------


def beat(session: Session, owner: str, leases: Collection[Lease]) -> list[Held]:
    """Show that the `owner` lives; returns those of its `leases` that it still holds."""
    ids = [lease.invocation_id for lease in leases]
    session.execute(
        update(Invocation)
        .where(col(Invocation.lease_owner) == owner, col(Invocation.id).in_(ids))
        .values(lease_beat=Invocation.lease_beat + 1)
        .execution_options(synchronize_session=False)
    )
    mine = set(leases)
    return [held for held in leased(session, owner) if held.lease in mine]


def leased(session: Session, owner: str | None = None) -> list[Held]:
    """Every lease, or those of one owner."""
    query = select(Invocation).where(col(Invocation.lease_owner).is_not(None))
    if owner is not None:
        query = query.where(Invocation.lease_owner == owner)
    return [
        Held(
            Lease.of(row),
            row.lease_owner or "",
            row.lease_beat,
            row.attempt,
            row.max_attempts,
            row.cancel_requested,
            row.claimed_at,
            None if row.batch_id else row.attempts or [],
        )
        for row in session.exec(query)
    ]


def succeed(
    session: Session,
    lease: Lease,
    now: datetime,
    result: Result,
    attempts: list[dict[str, Any]] | None = None,
) -> bool:
    """Publish a result; False when the lease was lost, and then nothing has changed.

    `attempts`, here and below, are all that ended, with the one that ends now.
    """
    return _change(
        session,
        lease,
        RUNNING,
        InvocationState.SUCCEEDED,
        finished_at=now,
        lease_owner=None,
        result=result.inline,
        result_key=result.key,
        error=None,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        cached_tokens=result.cached_tokens,
        replica_s=result.replica_s,
        result_bytes=result.size_bytes,
        **_given(attempts=attempts),
    )


def end(
    session: Session,
    lease: Lease,
    after: InvocationState,
    now: datetime,
    error: dict[str, Any] | None = None,
    attempts: list[dict[str, Any]] | None = None,
) -> bool:
    """Finish a running row without a result; False when the lease was lost."""
    return _change(
        session,
        lease,
        RUNNING,
        after,
        finished_at=now,
        lease_owner=None,
        error=error,
        **_given(attempts=attempts),
    )


def requeue(
    session: Session,
    lease: Lease,
    now: datetime,
    *,
    available_at: datetime,
    counted: bool,
    error: dict[str, Any] | None = None,
    attempts: list[dict[str, Any]] | None = None,
) -> InvocationState | None:
    """Give a running row back, not to be claimed before `available_at`.

    `counted` says whether the run was one of the row's attempts; `error` says why it ended. A row
    whose cancellation was asked for is canceled instead. Returns what it became; None when the
    lease was lost.
    """
    row = session.get(Invocation, lease.invocation_id, populate_existing=True)
    if row is not None and row.cancel_requested:
        canceled = InvocationState.CANCELED
        done = end(session, lease, canceled, now, attempts=attempts)
        return canceled if done else None
    values: dict[str, Any] = {
        "available_at": available_at,
        "delayed": available_at > now,
        "lease_owner": None,
        **_given(error=error, attempts=attempts),
    }
    if not counted:
        values["attempt"] = Invocation.attempt - 1
    return Q if _change(session, lease, RUNNING, Q, **values) else None


def cancel(session: Session, row: Invocation, now: datetime) -> bool:
    """Cancel a queued row now, mark a running one; False when it is neither any more."""
    lease = Lease.of(row)
    if row.status == Q:
        return _change(session, lease, Q, InvocationState.CANCELED, finished_at=now)
    return _change(session, lease, RUNNING, RUNNING, cancel_requested=True)


def receive(session: Session, lease: Lease, key: str, outline: dict[str, Any] | None) -> bool:
    """Say where the body of a running row is now; False when the lease was lost."""
    return _change(session, lease, RUNNING, RUNNING, request_key=key, outline=outline)


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
    return _change(
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


# --- many rows ------------------------------------------------------------------------------------


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
        col(Invocation.status) == RUNNING.value,
    ]
    session.execute(
        update(Invocation)
        .where(*running)
        .values(cancel_requested=True)
        .execution_options(synchronize_session=False)
    )
    return list(session.exec(select(Invocation.id).where(*running)))


# --- inside ---------------------------------------------------------------------------------------


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the others stay as they are."""
    return {name: value for name, value in values.items() if value is not None}


def _change(
    session: Session, lease: Lease, before: InvocationState, after: InvocationState, **values: Any
) -> bool:
    check_transition(INVOCATION, before, after)
    as_seen = (
        col(Invocation.id) == lease.invocation_id,
        col(Invocation.lease_epoch) == lease.epoch,
        col(Invocation.status) == before.value,
    )
    values["status"] = after.value
    changed = swapped(session, update(Invocation).where(*as_seen).values(**values))
    if changed and after.is_final:
        outbox.invocations_ended(session, [lease.invocation_id])
    return changed


def _end_queued(
    session: Session,
    after: InvocationState,
    now: datetime,
    which: ColumnElement[bool],
    error: dict[str, Any] | None = None,
) -> list[str]:
    check_transition(INVOCATION, Q, after)
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
