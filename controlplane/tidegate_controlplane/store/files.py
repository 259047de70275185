"""Rows of uploaded and written files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_
from sqlmodel import Session, col, select

from tidegate_controlplane.store.batches import is_unfinished
from tidegate_controlplane.store.tables import Batch, File


def insert(session: Session, file: File) -> None:
    session.add(file)


def get(session: Session, project_id: str, file_id: str, now: datetime) -> File | None:
    """A file that is neither deleted nor expired."""
    file = kept(session, project_id, file_id)
    if file is None or (file.expires_at is not None and file.expires_at <= now):
        return None
    return file


def kept(session: Session, project_id: str, file_id: str) -> File | None:
    """A file that is not deleted: one that expired stays for the batch that reads it."""
    file = session.get(File, file_id)
    if file is None or file.project_id != project_id or file.deleted_at is not None:
        return None
    return file


@dataclass(frozen=True)
class Page:
    """Which files are listed, and in which order."""

    after: str | None = None
    limit: int = 20
    purpose: str | None = None
    ascending: bool = False
    """Oldest first."""


def page(session: Session, project_id: str, now: datetime, wanted: Page) -> list[File]:
    """At most one file more than `wanted.limit`, so that it is known whether there are more."""
    query = select(File).where(
        File.project_id == project_id,
        col(File.deleted_at).is_(None),
        or_(col(File.expires_at).is_(None), col(File.expires_at) > now),
    )
    if wanted.after is not None:
        later = col(File.id) > wanted.after
        query = query.where(later if wanted.ascending else col(File.id) < wanted.after)
    if wanted.purpose is not None:
        query = query.where(File.purpose == wanted.purpose)
    order = col(File.id).asc() if wanted.ascending else col(File.id).desc()
    return list(session.exec(query.order_by(order).limit(wanted.limit + 1)))


def user_of(session: Session, file_id: str) -> str | None:
    """The id of an unfinished batch that reads this file."""
    query = select(Batch.id).where(Batch.input_file_id == file_id, is_unfinished())
    return session.exec(query.limit(1)).first()


def delete(session: Session, file: File, now: datetime) -> None:
    """Hide it: the row stays for the batches that name it."""
    file.deleted_at = now
    session.add(file)
