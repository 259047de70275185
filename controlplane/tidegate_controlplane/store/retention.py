"""Rows whose time has passed. Each unit changes a bounded number of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, update
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from tidegate_controlplane.domain.retention import forget_at
from tidegate_controlplane.store import files
from tidegate_controlplane.store.batches import is_unfinished
from tidegate_controlplane.store.tables import Batch, File, Invocation

STEP = 200
"""Rows that one transaction changes, so that nobody waits long for the writer."""


@dataclass(frozen=True)
class Forgotten:
    """A finished row whose body and result go: its objects, and the bytes that were in the row."""

    id: str
    keys: tuple[str, ...]
    inline_bytes: int


# --- bodies and results ---------------------------------------------------------------------------


def unstamped(session: Session, retention_s: float) -> dict[str, datetime]:
    """Finished rows with a time of their own, and when they are due; at most STEP."""
    query = select(Invocation.id, Invocation.finished_at, Invocation.result_ttl_s).where(
        col(Invocation.result_ttl_s).is_not(None),
        col(Invocation.forget_at).is_(None),
        col(Invocation.finished_at).is_not(None),
    )
    return {
        row_id: forget_at(finished_at, ttl_s, retention_s)
        for row_id, finished_at, ttl_s in session.exec(query.limit(STEP))
        if finished_at is not None
    }


def stamp(session: Session, moments: Mapping[str, datetime]) -> None:
    """Write down when they are due."""
    for row_id, moment in moments.items():
        _update(session, Invocation, col(Invocation.id) == row_id, forget_at=moment)


def due(session: Session, now: datetime, finished_before: datetime) -> list[Forgotten]:
    """Finished rows that are kept no longer, at most STEP; none that an unfinished batch needs."""
    kept = (col(Invocation.forgotten_at).is_(None), _needed_by_no_batch())
    late = (
        col(Invocation.finished_at).is_not(None),
        col(Invocation.finished_at) <= finished_before,
    )
    early = (col(Invocation.forget_at).is_not(None), col(Invocation.forget_at) <= now)
    found = [*_forgotten(session, *late, *kept), *_forgotten(session, *early, *kept)]
    return list({one.id: one for one in found}.values())[:STEP]


def forget(session: Session, ids: Collection[str], now: datetime) -> list[Forgotten]:
    """Clear the bodies and results of those that are finished; returns what they had."""
    which = (
        col(Invocation.id).in_(ids),
        col(Invocation.finished_at).is_not(None),
        col(Invocation.forgotten_at).is_(None),
    )
    found = _forgotten(session, *which)
    _update(
        session,
        Invocation,
        col(Invocation.id).in_([one.id for one in found]),
        request=None,
        request_key=None,
        result=None,
        result_key=None,
        forgotten_at=now,
    )
    return found


def oldest_kept(session: Session) -> datetime | None:
    """When the oldest finished row ended that still has its body and result."""
    return session.exec(
        select(func.min(Invocation.finished_at)).where(
            col(Invocation.finished_at).is_not(None), col(Invocation.forgotten_at).is_(None)
        )
    ).one()


# --- files ----------------------------------------------------------------------------------------


def expired_files(session: Session, now: datetime) -> list[str]:
    """Files whose time has passed and that no unfinished batch reads; at most STEP."""
    return [file.id for file in session.exec(_expired(now).limit(STEP))]


def hide_files(session: Session, ids: Collection[str], now: datetime) -> list[File]:
    """Hide those of them that are still expired and unread."""
    expired = list(session.exec(_expired(now).where(col(File.id).in_(ids))))
    for file in expired:
        files.delete(session, file, now)
    return expired


def _expired(now: datetime) -> SelectOfScalar[File]:
    readers = select(Batch.id).where(col(Batch.input_file_id) == col(File.id), is_unfinished())
    return select(File).where(
        col(File.expires_at) <= now, col(File.deleted_at).is_(None), ~readers.exists()
    )


# --- rows -----------------------------------------------------------------------------------------


def has_old_rows(session: Session, before: datetime) -> bool:
    """Whether `drop_rows` would find something."""
    return any(session.exec(which.limit(1)).first() for _, which in _old_rows(before))


def drop_rows(session: Session, before: datetime) -> int:
    """Delete rows that ended so long ago: requests, then batches, then files; how many."""
    return sum(_delete(session, table, which) for table, which in _old_rows(before))


def _old_rows(before: datetime) -> list[tuple[Any, SelectOfScalar[str]]]:
    """Each table, and which of its ids: no batch that has lines, no file that a batch names."""
    old_batches = select(Batch.id).where(_ended_before(before))
    # As an expression, so that no index on batches is taken for that of forgotten rows.
    batch = func.coalesce(Invocation.batch_id, "")
    requests = select(Invocation.id).where(
        col(Invocation.forgotten_at).is_not(None),
        col(Invocation.finished_at) <= before,
        or_(batch == "", batch.in_(old_batches)),
    )
    empty = old_batches.where(
        ~select(Invocation.id).where(col(Invocation.batch_id) == col(Batch.id)).exists()
    )
    named = [Batch.input_file_id, Batch.output_file_id, Batch.error_file_id]
    unnamed = select(File.id).where(
        col(File.deleted_at) <= before,
        *(~select(Batch.id).where(col(name) == col(File.id)).exists() for name in named),
    )
    return [(Invocation, requests), (Batch, empty), (File, unnamed)]


def _delete(session: Session, table: Any, which: SelectOfScalar[str]) -> int:
    ids = list(session.exec(which.limit(STEP)))
    session.execute(
        delete(table).where(table.id.in_(ids)).execution_options(synchronize_session=False)
    )
    return len(ids)


# --- inside ---------------------------------------------------------------------------------------


def _forgotten(session: Session, *which: ColumnElement[bool]) -> list[Forgotten]:
    query: Select[Any] = select(  # type: ignore[call-overload]
        Invocation.id,
        Invocation.request_key,
        Invocation.result_key,
        func.coalesce(func.length(Invocation.request), 0),
        func.coalesce(func.length(Invocation.result), 0),
    ).where(*which)
    return [
        Forgotten(row_id, tuple(filter(None, keys)), request_bytes + result_bytes)
        for row_id, *keys, request_bytes, result_bytes in session.execute(query.limit(STEP))
    ]


def _update(session: Session, table: Any, which: ColumnElement[bool], **values: Any) -> None:
    session.execute(
        update(table).where(which).values(**values).execution_options(synchronize_session=False)
    )


def _needed_by_no_batch() -> ColumnElement[bool]:
    unfinished = select(Batch.id).where(is_unfinished())
    return or_(col(Invocation.batch_id).is_(None), col(Invocation.batch_id).not_in(unfinished))


def _ended_before(moment: datetime) -> ColumnElement[bool]:
    """Final; its end is the one of four moments that is there."""
    ended = func.coalesce(Batch.completed_at, Batch.failed_at, Batch.expired_at, Batch.cancelled_at)
    return ~is_unfinished() & (ended <= moment)
