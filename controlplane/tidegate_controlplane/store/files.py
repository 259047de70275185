"""Rows of uploaded and written files."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.store.tables import Batch, File


def insert(session: Session, file: File) -> None:
    session.add(file)


def get(session: Session, project_id: str, file_id: str) -> File | None:
    """A file that is not deleted."""
    file = session.get(File, file_id)
    if file is None or file.project_id != project_id or file.deleted_at is not None:
        return None
    return file


def page(
    session: Session, project_id: str, *, after: str | None, limit: int, purpose: str | None
) -> list[File]:
    """At most `limit` files, newest first, those older than the file `after`."""
    query = select(File).where(File.project_id == project_id, col(File.deleted_at).is_(None))
    if after is not None:
        query = query.where(File.id < after)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return list(session.exec(query.order_by(col(File.id).desc()).limit(limit)))


def user_of(session: Session, file_id: str) -> str | None:
    """The id of an unfinished batch that reads this file."""
    unfinished = [status.value for status in BatchStatus if not status.is_final]
    return session.exec(
        select(Batch.id)
        .where(Batch.input_file_id == file_id, col(Batch.status).in_(unfinished))
        .limit(1)
    ).first()


def delete(session: Session, file: File, now: datetime) -> None:
    """Hide it: the row stays for the batches that name it."""
    file.deleted_at = now
    session.add(file)
