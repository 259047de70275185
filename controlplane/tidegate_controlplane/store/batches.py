"""Rows of batches. A change names the version it saw; one that lost a race changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import CursorResult, func, update
from sqlmodel import Session, col, select

from tidegate.protocol.work import BatchCounts, BatchStatus, InvocationState
from tidegate_controlplane.domain.states import BATCH, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.tables import Batch, Invocation


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


def unfinished(session: Session) -> list[Batch]:
    """Every batch that something is still to be done for, oldest first."""
    open_states = [status.value for status in BatchStatus if not status.is_final]
    query = select(Batch).where(col(Batch.status).in_(open_states)).order_by(col(Batch.id))
    return list(session.exec(query))


def change(session: Session, seen: Batch, after: BatchStatus, **values: Any) -> bool:
    """Move on from the row as it was `seen`; False when somebody else moved it meanwhile."""
    before = BatchStatus(seen.status)
    check_transition(BATCH, before, after)
    done = session.execute(
        update(Batch)
        .where(
            col(Batch.id) == seen.id,
            col(Batch.version) == seen.version,
            col(Batch.status) == before.value,
        )
        .values(status=after.value, version=seen.version + 1, **values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(done, CursorResult)
    changed = bool(done.rowcount == 1)
    if changed and after.is_final:
        outbox.batch_ended(session, seen.id)
    return changed


def counts(session: Session, batch_ids: Collection[str]) -> dict[str, BatchCounts]:
    """How many lines each batch has, and how they ended."""
    by_state = _by_state(session, batch_ids)
    return {batch_id: _summary(by_state.get(batch_id, {})) for batch_id in batch_ids}


def lines_by_state(session: Session, batch_id: str) -> dict[InvocationState, int]:
    """How many lines of one batch are in each state; states without lines are left out."""
    return _by_state(session, [batch_id]).get(batch_id, {})


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
            Invocation.batch_id == batch_id,
            col(Invocation.line_no) > line_no,
            Invocation.status == state if succeeded else Invocation.status != state,
        )
        .order_by(col(Invocation.line_no))
        .limit(limit)
    )
    return list(session.exec(query))


def _by_state(
    session: Session, batch_ids: Collection[str]
) -> dict[str, dict[InvocationState, int]]:
    query = (
        select(Invocation.batch_id, Invocation.status, func.count())
        .where(col(Invocation.batch_id).in_(batch_ids))
        .group_by(col(Invocation.batch_id), col(Invocation.status))
    )
    found: dict[str, dict[InvocationState, int]] = {}
    for batch_id, status, number in session.exec(query):
        assert batch_id is not None
        found.setdefault(batch_id, {})[InvocationState(status)] = number
    return found


def _summary(lines: dict[InvocationState, int]) -> BatchCounts:
    completed = lines.get(InvocationState.SUCCEEDED, 0)
    final = sum(number for state, number in lines.items() if state.is_final)
    return BatchCounts(total=sum(lines.values()), completed=completed, failed=final - completed)
