"""What several rooms start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with this version's tables and no rows."""
    path = tmp_path_factory.mktemp("migrated") / "tidegate.db"
    database = Database(path)
    migrate(database.writer)
    database.close()
    return path
