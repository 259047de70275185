"""Which database engine a test runs on."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def engine(request):
    """SQLite; PostgreSQL too where a test says `@pytest.mark.both_engines`."""
    return getattr(request, "param", "sqlite")


def pytest_generate_tests(metafunc):
    if metafunc.definition.get_closest_marker("both_engines"):
        metafunc.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database_url(engine, tmp_path, migrated, request):
    """A database with the tables; None for the file in the data directory."""
    if engine == "postgres":
        return request.getfixturevalue("postgres").database()
    shutil.copy(migrated, tmp_path)
    return None
