from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    elapsed_s: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(found.writer)
    yield found
    found.close()


@pytest.fixture
def keys(database: Database, tmp_path: Path, clock: HandClock) -> KeyService:
    return KeyService(database, load_pepper(tmp_path / "pepper"), clock)
