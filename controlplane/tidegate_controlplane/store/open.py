"""Which database this process uses."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.postgres import PostgresDatabase, shown
from tidegate_controlplane.store.sqlite import SqliteDatabase


def open_database(url: str | None, path: Path) -> Database:
    """The server that `url` names, else the SQLite file `path`; StartError when it cannot be used.

    Blocks.
    """
    if url is None:
        return SqliteDatabase(path)
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise StartError(f"database: expected postgresql://user@host/name, got {shown(url)!r}")
    database = PostgresDatabase(url)
    try:
        database.check()
    except StartError:
        database.close()
        raise
    return database
