"""Rows of durable requests: the queue.

A row is changed only by whoever saw it last: `WHERE id AND lease_epoch AND status`, zero rows
changed means stale, and the caller drops what it holds. A claim raises the epoch, so the result of
a lease that was lost can never land (Kleppmann, "How to do distributed locking": fencing tokens).

`finished_at IS NULL` in a query selects the indexes that hold unfinished rows only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, update
from sqlmodel import Session, col, select

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.domain.states import INVOCATION, check_transition
from tidegate_controlplane.store.tables import Invocation

BULK = 1000
"""Rows that one transaction changes at most, so that no writer waits long for another."""

LINE_PRIORITY = 10
"""Of the lines of a batch; an invocation on its own has 0, and runs before them."""

Q, RUNNING = InvocationState.QUEUED, InvocationState.RUNNING


@dataclass(frozen=True)
class Backlog:
    """Unfinished work of one deployment."""

    queued: int
    running: int
    oldest_s: float
    """Age of the oldest queued request; 0 when none is queued."""


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
    object_bytes: int | None = None

    @property
    def bytes(self) -> int | None:
        """Its length, wherever it is."""
        return self.object_bytes if self.inline is None else len(self.inline)


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


def claim(
    session: Session, deployment_id: str, owner: str, now: datetime, *, alone: int, lines: int
) -> list[Invocation]:
    """Lease at most `alone` due invocations, and at most `lines` requests in all with batch lines.

    Invocations come first; among equals the oldest.
    """
    chosen = _due(session, deployment_id, now, alone, of_batch=False)
    chosen += _due(session, deployment_id, now, lines - len(chosen), of_batch=True)
    for row in chosen:
        changed = _change(
            session,
            Lease.of(row),
            Q,
            RUNNING,
            lease_owner=owner,
            lease_epoch=row.lease_epoch + 1,
            attempt=row.attempt + 1,
            started_at=row.started_at or now,
            claimed_at=now,
        )
        assert changed, "one writer: nobody else can have taken it"
        session.refresh(row)
    return chosen


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
        result_bytes=result.bytes,
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
    values: dict[str, Any] = {"available_at": available_at, "lease_owner": None}
    values |= _given(error=error, attempts=attempts)
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

    Its epoch is raised, so that no event of before is taken for one of after.
    """
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
        started_at=None,
        claimed_at=None,
        finished_at=None,
        cancel_requested=False,
        expires_at=row.expires_at and row.expires_at + later,
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
    query = select(Invocation.id).where(
        col(Invocation.finished_at).is_(None),
        col(Invocation.expires_at) <= now,
        Invocation.status == Q.value,
    )
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


def deployments_with_work(session: Session) -> list[str]:
    """The deployments that unfinished work names.

    A skip scan: one index seek for each deployment, however long the queue is.
    """
    found: list[str] = []
    while True:
        query = select(func.min(Invocation.deployment_id)).where(
            col(Invocation.finished_at).is_(None),
            col(Invocation.deployment_id) > (found[-1] if found else ""),
        )
        if (following := session.exec(query).one()) is None:
            return found
        found.append(following)


def backlog(session: Session, now: datetime) -> dict[str, Backlog]:
    """Unfinished work by deployment id, whether due already or still backing off."""
    query = (
        select(
            Invocation.deployment_id,
            Invocation.status,
            func.count(),
            func.min(Invocation.created_at),
        )
        .where(col(Invocation.finished_at).is_(None), col(Invocation.deployment_id).is_not(None))
        .group_by(col(Invocation.deployment_id), col(Invocation.status))
    )
    numbers: dict[str, dict[str, int]] = {}
    oldest_s: dict[str, float] = {}
    for deployment_id, status, number, oldest in session.exec(query):
        assert deployment_id is not None
        numbers.setdefault(deployment_id, {})[status] = number
        if status == Q:
            oldest_s[deployment_id] = max(0.0, (now - oldest) / timedelta(seconds=1))
    return {
        deployment_id: Backlog(
            queued=number.get(Q, 0),
            running=number.get(RUNNING, 0),
            oldest_s=oldest_s.get(deployment_id, 0.0),
        )
        for deployment_id, number in numbers.items()
    }


# --- inside ---------------------------------------------------------------------------------------


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the others stay as they are."""
    return {name: value for name, value in values.items() if value is not None}


def _change(
    session: Session, lease: Lease, before: InvocationState, after: InvocationState, **values: Any
) -> bool:
    check_transition(INVOCATION, before, after)
    done = session.execute(
        update(Invocation)
        .where(
            col(Invocation.id) == lease.invocation_id,
            col(Invocation.lease_epoch) == lease.epoch,
            col(Invocation.status) == before.value,
        )
        .values(status=after.value, **values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(done, CursorResult)
    return bool(done.rowcount == 1)


def _due(
    session: Session, deployment_id: str, now: datetime, limit: int, *, of_batch: bool
) -> list[Invocation]:
    if limit <= 0:
        return []
    query = (
        select(Invocation)
        .where(
            col(Invocation.finished_at).is_(None),
            Invocation.deployment_id == deployment_id,
            Invocation.status == Q.value,
            Invocation.priority >= LINE_PRIORITY
            if of_batch
            else Invocation.priority < LINE_PRIORITY,
            Invocation.available_at <= now,
            func.coalesce(Invocation.expires_at, now) >= now,
        )
        .order_by(col(Invocation.priority), col(Invocation.created_at), col(Invocation.id))
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return list(session.exec(query))


def _end_queued(
    session: Session,
    after: InvocationState,
    now: datetime,
    which: ColumnElement[bool],
    error: dict[str, Any] | None = None,
) -> list[str]:
    check_transition(INVOCATION, Q, after)
    queued: Sequence[ColumnElement[bool]] = [
        col(Invocation.finished_at).is_(None),
        col(Invocation.status) == Q.value,
        which,
    ]
    ids = list(session.exec(select(Invocation.id).where(*queued).limit(BULK)))
    session.execute(
        update(Invocation)
        .where(col(Invocation.id).in_(ids))
        .values(status=after.value, finished_at=now, error=error)
        .execution_options(synchronize_session=False)
    )
    return ids
