"""A real SQLite file at this version's tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import Session

from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, Project


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    found = Database(tmp_path / "tidegate.db")
    yield found
    found.close()


@pytest.fixture
def database(empty: Database) -> Database:
    """This version's tables, and the default project."""
    migrate(empty.writer)
    with Session(empty.writer) as session, session.begin():
        now = datetime(2026, 1, 1, tzinfo=UTC)
        session.add(Project(id=DEFAULT_PROJECT, name="default", created_at=now))
    return empty
