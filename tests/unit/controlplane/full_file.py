"""A SQLite file that may not grow, as on a full disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlmodel import Session

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.store.database import Database

UNBOUNDED_PAGES = 2**30


@asynccontextmanager
async def full_file(database: Database) -> AsyncIterator[None]:
    """Inside, what needs one page more is refused by SQLite itself; no page is free."""
    await database.write(lambda session: _run(session, "CREATE TABLE filling (content BLOB)"))
    await database.write(lambda session: _run(session, "PRAGMA max_page_count = 1"))
    try:
        while True:
            await database.write(
                lambda session: _run(session, "INSERT INTO filling VALUES (zeroblob(4096))")
            )
    except Unavailable:
        pass
    try:
        yield
    finally:
        await database.write(
            lambda session: _run(session, f"PRAGMA max_page_count = {UNBOUNDED_PAGES}")
        )


def _run(session: Session, statement: str) -> None:
    session.connection().exec_driver_sql(statement)
