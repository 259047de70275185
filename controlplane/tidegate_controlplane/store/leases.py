"""Leases of running rows: the right to say how a run went.

A row is changed only by whoever saw it last: `WHERE id AND lease_epoch AND status`, zero rows
changed means stale, and the caller drops what it holds. A claim raises the epoch, so the result of
a lease that was lost can never land (Kleppmann, "How to do distributed locking": fencing tokens).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col, select

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.domain.states import INVOCATION, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.swap import swapped
from tidegate_controlplane.store.tables import Invocation

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
    return change(
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
    return change(
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
    return Q if change(session, lease, RUNNING, Q, **values) else None


def receive(session: Session, lease: Lease, key: str, outline: dict[str, Any] | None) -> bool:
    """Say where the body of a running row is now; False when the lease was lost."""
    return change(session, lease, RUNNING, RUNNING, request_key=key, outline=outline)


def change(
    session: Session, lease: Lease, before: InvocationState, after: InvocationState, **values: Any
) -> bool:
    """Change a row as the lease saw it; False when it is another by now, and nothing has changed.

    Raises ImpossibleTransition when `before` never becomes `after`.
    """
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


def _given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the others stay as they are."""
    return {name: value for name, value in values.items() if value is not None}
