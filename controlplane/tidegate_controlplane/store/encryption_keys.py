"""Which keys something may be sealed under."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import delete, func, or_
from sqlmodel import Session, col, select

from tidegate_controlplane.encryption.envelope import MAGIC
from tidegate_controlplane.store.tables import EncryptionKey, Invocation


def recorded(session: Session) -> list[str]:
    """The ids, the one that was used first before the others."""
    query = select(EncryptionKey.id).order_by(col(EncryptionKey.first_used_at))
    return list(session.exec(query))


def record(session: Session, key_id: str, now: datetime) -> None:
    """Before the first thing is sealed under it."""
    if session.get(EncryptionKey, key_id) is None:
        session.add(EncryptionKey(id=key_id, first_used_at=now))


def keep_only(session: Session, key_ids: Iterable[str]) -> None:
    """Nothing is sealed under any other."""
    session.execute(delete(EncryptionKey).where(col(EncryptionKey.id).not_in(list(key_ids))))


def has_sealed_rows(session: Session) -> bool:
    """Whether a body in a row is sealed; it looks at every row until it finds one."""
    bodies: Collection[object] = (Invocation.request, Invocation.result)
    begins = [func.substr(body, 1, len(MAGIC)) == MAGIC for body in bodies]
    return session.exec(select(Invocation.id).where(or_(*begins)).limit(1)).first() is not None
