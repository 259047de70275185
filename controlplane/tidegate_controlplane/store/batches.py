"""Rows of batches. A change names the version it saw; one that lost a race changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, update
from sqlalchemy import select as columns
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate_controlplane.domain.batch_progress import Tally
from tidegate_controlplane.domain.states import BATCH, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.swap import swapped
from tidegate_controlplane.store.tables import Batch, Invocation


@dataclass(frozen=True)
class Lines:
    """What a batch's next step depends on."""

    queued: bool = False
    running: bool = False
    cut_off: bool = False
    """Some ended only because the batch did."""


def insert(session: Session, batch: Batch) -> None:
    session.add(batch)


def get(session: Session, project_id: str, batch_id: str) -> Batch | None:
    batch = session.get(Batch, batch_id)
    return batch if batch is not None and batch.project_id == project_id else None


def page(session: Session, project_id: str, *, after: str | None, limit: int) -> list[Batch]:
    """At most `limit` batches, newest first, those older than the batch `after`."""
    query = select(Batch).where(Batch.project_id == project_id)
    if after is not None:
        query = query.where(Batch.id < after)
    return list(session.exec(query.order_by(col(Batch.id).desc()).limit(limit)))


def is_unfinished() -> ColumnElement[bool]:
    """Whether something is still to be done for a batch; the condition of a query."""
    return col(Batch.status).in_([status.value for status in BatchStatus if not status.is_final])


def unfinished(session: Session) -> list[Batch]:
    """Every batch that something is still to be done for, oldest first."""
    return list(session.exec(select(Batch).where(is_unfinished()).order_by(col(Batch.id))))


def change(session: Session, seen: Batch, after: BatchStatus, **values: Any) -> bool:
    """Move on from the row as it was `seen`; False when somebody else moved it meanwhile."""
    before = BatchStatus(seen.status)
    check_transition(BATCH, before, after)
    as_seen = (
        col(Batch.id) == seen.id,
        col(Batch.version) == seen.version,
        col(Batch.status) == before.value,
    )
    values |= {"status": after.value, "version": seen.version + 1}
    changed = swapped(session, update(Batch).where(*as_seen).values(**values))
    if changed and after.is_final:
        outbox.batch_ended(session, seen.id)
    return changed


def explain(session: Session, seen: Batch, errors: list[dict[str, Any]]) -> None:
    """Say why a batch does not go on; nothing when it has moved on since it was `seen`."""
    session.execute(
        update(Batch)
        .where(col(Batch.id) == seen.id, col(Batch.version) == seen.version)
        .values(errors=errors)
        .execution_options(synchronize_session=False)
    )


def lines(session: Session, batch_id: str) -> Lines:
    """What is known of its lines, by a seek in an index for each question."""
    ours = Invocation.batch_id == batch_id
    unfinished = col(Invocation.finished_at).is_(None)
    cut_off = [InvocationState.CANCELED.value, InvocationState.EXPIRED.value]
    return Lines(
        queued=_any(session, unfinished, ours, Invocation.status == InvocationState.QUEUED.value),
        running=_any(session, unfinished, ours, Invocation.status == InvocationState.RUNNING.value),
        cut_off=_any(
            session,
            col(Invocation.finished_at).is_not(None),
            ours,
            col(Invocation.status).in_(cut_off),
        ),
    )


def tally(session: Session, batch_id: str, since: datetime | None = None) -> Tally:
    """How the lines ended that ended at all, or after `since`. Reads an index only, no row."""
    succeeded = col(Invocation.status) == InvocationState.SUCCEEDED.value
    query = columns(
        func.count(),
        func.coalesce(func.sum(case((succeeded, 1), else_=0)), 0),
        func.coalesce(func.sum(Invocation.prompt_tokens), 0),
        func.coalesce(func.sum(Invocation.completion_tokens), 0),
        func.coalesce(func.sum(Invocation.cached_tokens), 0),
        func.coalesce(func.sum(Invocation.replica_s), 0.0),
    ).where(
        col(Invocation.finished_at).is_not(None),
        col(Invocation.batch_id) == batch_id,
        # Named one by one, so that the index can seek to `since` in each.
        col(Invocation.status).in_([state.value for state in InvocationState if state.is_final]),
    )
    if since is not None:
        query = query.where(col(Invocation.finished_at) > since)
    ended, answered, prompt, completion, cached, replica_s = session.execute(query).one()
    return Tally(answered, ended - answered, prompt, completion, cached, replica_s)


def keep_parts(session: Session, seen: Batch, parts: list[dict[str, Any]]) -> None:
    """Remember the objects that it reads, unless somebody else did meanwhile."""
    session.execute(
        update(Batch)
        .where(col(Batch.id) == seen.id, col(Batch.parts).is_(None))
        .values(parts=parts)
        .execution_options(synchronize_session=False)
    )


def chain(session: Session, batch: Batch) -> list[str]:
    """Its id, and those of the batches whose lines it runs again, the newest first."""
    found = [batch.id]
    former = batch.retry_of
    while former is not None:
        found.append(former)
        row = session.get(Batch, former)
        former = row.retry_of if row else None
    return found


def lines_between(
    session: Session, batch_ids: Collection[str], first: int, last: int
) -> list[Invocation]:
    """The lines of several batches with these numbers, both ends included."""
    query = (
        select(Invocation)
        .where(
            col(Invocation.batch_id).in_(batch_ids),
            col(Invocation.line_no) >= first,
            col(Invocation.line_no) <= last,
        )
        .options(defer(Invocation.request))  # type: ignore[arg-type]
    )
    return list(session.exec(query))


def count(session: Session, batch_id: str) -> int:
    """Lines that have a row."""
    return session.exec(select(func.count()).where(Invocation.batch_id == batch_id)).one()


def unanswered(session: Session, batch_id: str, limit: int | None = None) -> list[int]:
    """The numbers of its lines (at most `limit`) that ended in any way but with an answer."""
    others = [s.value for s in InvocationState if s.is_final and s is not InvocationState.SUCCEEDED]
    query = (
        select(Invocation.line_no)
        .where(
            col(Invocation.finished_at).is_not(None),
            col(Invocation.batch_id) == batch_id,
            col(Invocation.status).in_(others),
        )
        .limit(limit)
    )
    return [number for number in session.exec(query) if number is not None]


def retry_of(session: Session, batch_id: str) -> str | None:
    """The id of a batch that runs its unanswered lines again, unless it ended without any."""
    fruitless = and_(col(Batch.in_progress_at).is_(None), ~is_unfinished())
    query = select(Batch.id).where(Batch.retry_of == batch_id, ~fruitless).limit(1)
    return session.exec(query).first()


def last_line(session: Session, batch_id: str) -> int:
    """The highest line number that has a row; 0 when none has."""
    highest = session.exec(
        select(func.max(Invocation.line_no)).where(Invocation.batch_id == batch_id)
    ).one()
    return highest or 0


def add_lines(session: Session, seen: Batch, lines: Collection[Invocation]) -> bool:
    """Insert them; False when the batch is no longer being validated.

    A second row for the same line is refused by the unique index on (batch, line).
    """
    batch = session.get(Batch, seen.id)
    if batch is None or batch.version != seen.version:
        return False
    session.add_all(lines)
    return True


def models(session: Session, batch_id: str, limit: int) -> list[str]:
    """At most `limit` different models that its lines name."""
    query = (
        select(Invocation.model)
        .where(Invocation.batch_id == batch_id, Invocation.model != "")
        .distinct()
        .limit(limit)
    )
    return list(session.exec(query))


def lines_after(
    session: Session, batch_id: str, line_no: int, limit: int, *, succeeded: bool
) -> list[Invocation]:
    """At most `limit` lines after `line_no` in the file's order: succeeded ones, or the others."""
    state = InvocationState.SUCCEEDED.value
    query = (
        select(Invocation)
        .where(
            col(Invocation.batch_id) == batch_id,
            col(Invocation.line_no) > line_no,
            Invocation.status == state if succeeded else Invocation.status != state,
        )
        .order_by(col(Invocation.line_no))
        .limit(limit)
        .options(defer(Invocation.request))  # type: ignore[arg-type]
    )
    return list(session.exec(query))


def _any(session: Session, *conditions: ColumnElement[bool] | bool) -> bool:
    return session.exec(select(Invocation.id).where(*conditions).limit(1)).first() is not None
