"""What only a PostgreSQL server has: conflicts, connections that are lost, an old version."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import Session, select
from tests.conftest import Postgres

from tidegate_controlplane.errors import BadRequest, OutcomeUnknown, StartError, Unavailable
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.postgres import PostgresDatabase, shown
from tidegate_controlplane.store.tables import Project

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOBODY = "postgresql://anna:secret@127.0.0.1:1/tidegate?sslpassword=secret"


@pytest.fixture
def engine() -> str:
    return "postgres"


@pytest.fixture
def other(database: Database) -> Iterator[PostgresDatabase]:
    """Another control plane's view of the same database."""
    assert isinstance(database, PostgresDatabase)
    found = PostgresDatabase(database.url)
    yield found
    found.close()


def project(name: str) -> Project:
    return Project(id=f"prj_{name}", name=name, created_at=NOW)


def names(session: Session) -> set[str]:
    return set(session.exec(select(Project.name))) - {"default"}


def end_others(session: Session) -> None:
    """As when the server's administrator ends every connection to this database."""
    session.connection().execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )


async def test_two_units_that_each_read_what_the_other_writes_do_not_both_go_by_the_old(
    database: Database, other: Database
) -> None:
    both = threading.Barrier(2)
    runs = []

    def only_one(session: Session, name: str) -> None:
        runs.append(name)
        nobody = not names(session)
        if len(runs) <= 2:
            both.wait(60)
        if nobody:
            session.add(project(name))

    await asyncio.gather(
        database.write(lambda s: only_one(s, "one")), other.write(lambda s: only_one(s, "two"))
    )
    assert len(runs) == 3
    assert len(await database.read(names)) == 1


async def test_a_guarded_unit_sees_what_others_commit_while_it_runs(
    database: Database, other: Database
) -> None:
    loop = asyncio.get_running_loop()
    began, written = asyncio.Event(), threading.Event()

    def unit(session: Session) -> tuple[set[str], set[str]]:
        first = names(session)
        loop.call_soon_threadsafe(began.set)
        assert written.wait(60)
        return first, names(session)

    looking = asyncio.create_task(database.write(Guarded(unit)))
    await began.wait()
    await other.write(lambda s: s.add(project("one")))
    written.set()
    assert await looking == (set(), {"one"})


async def test_commits_wait_for_the_disk_whatever_the_server_is_told(
    database: Database, other: Database, postgres: Postgres
) -> None:
    postgres.run(
        f"ALTER DATABASE {database.url.split('/')[3].split('?')[0]} SET synchronous_commit = off"
    )
    shown_by = lambda s: s.connection().execute(text("SHOW synchronous_commit")).scalar_one()  # noqa: E731
    assert await other.write(shown_by) == "on"
    assert await other.read(shown_by) == "on"


async def test_a_unit_whose_connection_is_lost_before_its_commit_runs_again(
    database: Database, other: Database
) -> None:
    loop, runs = asyncio.get_running_loop(), []

    def unit(session: Session) -> None:
        runs.append(1)
        session.add(project("one"))
        session.flush()
        if len(runs) == 1:
            asyncio.run_coroutine_threadsafe(other.write(end_others), loop).result(60)

    await database.write(unit)
    assert len(runs) == 2
    assert await database.read(names) == {"one"}


async def test_a_read_runs_again_after_the_server_ended_every_connection(
    database: Database, other: Database
) -> None:
    await database.read(names)
    await other.write(end_others)
    assert await database.read(names) == set()


class Cut:
    """Loses a connection around its COMMIT: before the server has it, or before its answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
        self.commits = 0
        commit = psycopg.Connection.commit

        def cut(connection: psycopg.Connection[Any]) -> None:
            self.commits += 1
            if self.commits == 1:
                if arrives:
                    commit(connection)
                connection.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            commit(connection)

        monkeypatch.setattr(psycopg.Connection, "commit", cut)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_without_an_answer_is_asked_about_and_made_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    runs = []

    def count_up(session: Session) -> int:
        runs.append(1)
        row = session.get_one(Project, "prj_default")
        row.name = f"{row.name}+"
        return len(runs)

    Cut(monkeypatch, arrives=arrives)
    assert await database.write(count_up) == (1 if arrives else 2)
    assert await database.read(names) == {"default+"}


async def test_a_commit_that_nobody_can_tell_about_is_said_to_be_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(database, PostgresDatabase)
    Cut(monkeypatch, arrives=True)
    hasty = PostgresDatabase(database.url, patience_s=0)
    try:
        with pytest.raises(OutcomeUnknown, match="same Idempotency-Key"):
            await hasty.write(lambda s: s.add(project("one")))
    finally:
        hasty.close()


async def test_a_server_that_stays_away_is_said_to_be_unavailable() -> None:
    database = PostgresDatabase(NOBODY, patience_s=0)
    try:
        with pytest.raises(Unavailable, match="could not be used") as refused:
            await database.read(names)
        assert "secret" not in str(refused.value)
    finally:
        database.close()


def test_control_planes_that_start_at_once_migrate_one_after_the_other(empty: Database) -> None:
    assert isinstance(empty, PostgresDatabase)
    planes = [PostgresDatabase(empty.url) for _ in range(4)]
    with ThreadPoolExecutor() as threads:
        list(threads.map(migrate, [database.writer for database in planes]))
    for database in planes:
        database.close()


# --- starting -------------------------------------------------------------------------------------


async def test_a_text_that_it_cannot_store_is_the_callers_fault(database: Database) -> None:
    with pytest.raises(BadRequest, match=r"U\+0000"):
        await database.write(lambda session: session.add(project("a\0b")))


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"postgresql://anna@127\.0\.0\.1:1/tidegate cannot") as e:
        open_database(NOBODY, tmp_path / "tidegate.db")
    assert "secret" not in str(e.value)


def test_a_server_that_is_too_old_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert isinstance(database, PostgresDatabase)
    monkeypatch.setattr("tidegate_controlplane.store.postgres.OLDEST_SERVER", 99)
    with pytest.raises(StartError, match=r"runs PostgreSQL \d+; version 99 or newer is needed"):
        open_database(database.url, tmp_path / "tidegate.db")


@pytest.mark.parametrize("url", ["mysql://anna:secret@host/name", "tidegate.db"])
def test_a_url_of_another_kind_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"expected postgresql://") as refused:
        open_database(url, tmp_path / "tidegate.db")
    assert "secret" not in str(refused.value)


def test_a_url_that_postgresql_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"postgresql://host/name\?colour=red is no PostgreSQL"):
        open_database("postgresql://host/name?colour=red", tmp_path / "tidegate.db")


def test_a_missing_driver_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartError, match=r"pip install 'tidegate\[postgres\]'"):
        open_database("postgresql://host/name", tmp_path / "tidegate.db")


def test_without_a_url_there_is_a_file(tmp_path: Path) -> None:
    database = open_database(None, tmp_path / "tidegate.db")
    try:
        assert not database.shared
        migrate(database.writer)
        assert (tmp_path / "tidegate.db").exists()
    finally:
        database.close()


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://anna:a:b@host:1/name", "postgresql://anna@host:1/name"),
        ("postgresql://host/name?password=x&host=/tmp", "postgresql://host/name?host=/tmp"),
        ("postgresql:///name", "postgresql:///name"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, seen: str) -> None:
    assert shown(url) == seen
