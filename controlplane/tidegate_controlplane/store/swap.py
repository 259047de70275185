"""Compare and swap: a change that names what it saw lands only while that is still so."""

from __future__ import annotations

from sqlalchemy import CursorResult, Delete, Update
from sqlmodel import Session


def rows_changed(session: Session, change: Update | Delete) -> int:
    """Run it; how many rows it found. Objects that the session holds keep their values."""
    done = session.execute(change.execution_options(synchronize_session=False))
    assert isinstance(done, CursorResult)
    return int(done.rowcount)


def swapped(session: Session, change: Update) -> bool:
    """Change one row as it was seen; False when somebody else changed it meanwhile."""
    return rows_changed(session, change) == 1
