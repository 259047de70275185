"""A real database at this version's tables: a SQLite file, and a PostgreSQL server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import Session

from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, Project


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What is asked of a database is asked of each."""
    return str(request.param)


@pytest.fixture
def empty(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    found: Database
    if engine == "sqlite":
        found = SqliteDatabase(tmp_path / "tidegate.db")
    else:
        found = PostgresDatabase(request.getfixturevalue("postgres").database("template1"))
    yield found
    found.close()


@pytest.fixture
def database(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, migrated: Path
) -> Iterator[Database]:
    """This version's tables, and the default project."""
    found: Database
    if engine == "sqlite":
        shutil.copy(migrated, tmp_path / "tidegate.db")
        found = SqliteDatabase(tmp_path / "tidegate.db")
    else:
        found = PostgresDatabase(request.getfixturevalue("postgres").database())
    with Session(found.writer) as session, session.begin():
        now = datetime(2026, 1, 1, tzinfo=UTC)
        session.add(Project(id=DEFAULT_PROJECT, name="default", created_at=now))
    yield found
    found.close()
