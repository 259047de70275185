"""What only a SQLite file has: its pragmas, its one owner, a library new enough."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select, text
from tests.unit.controlplane.full_file import full_file

from tidegate_controlplane.errors import StartError, Unavailable
from tidegate_controlplane.store import sqlite as room
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase, sqlite_driver
from tidegate_controlplane.store.tables import Project

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine() -> str:
    return "sqlite"


def project(name: str) -> Project:
    return Project(id=f"prj_{name}", name=name, created_at=NOW)


def names(session: Session) -> set[str]:
    return set(session.exec(select(Project.name))) - {"default"}


async def test_a_writer_in_another_connection_waits_for_its_turn(
    database: Database, tmp_path: Path
) -> None:
    other = SqliteDatabase(tmp_path / "tidegate.db")
    await database.write(lambda s: s.add(project("0")))
    inside = threading.Semaphore(1)

    def count_up(session: Session) -> None:
        row = session.exec(select(Project).where(Project.id == "prj_0")).one()
        assert inside.acquire(blocking=False), "two units of work at once"
        row.name = str(int(row.name) + 1)
        session.flush()
        inside.release()

    units = [one.write(count_up) for one in (database, other) for _ in range(10)]
    await asyncio.gather(*units)
    other.close()
    assert await database.read(names) == {"20"}


async def test_the_file_is_kept_as_the_design_wants_it(database: Database) -> None:
    def pragmas(session: Session) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [session.connection().execute(text(f"PRAGMA {n}")).scalar_one() for n in names]

    assert await database.write(pragmas) == ["wal", 2, 1]
    assert await database.read(pragmas) == ["wal", 2, 1]


async def test_closing_folds_the_log_into_the_file(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(database.writer)
    await database.write(lambda s: s.add(project("one")))
    assert await database.read(names) == {"one"}
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tidegate.db"]


# --- group commit ---------------------------------------------------------------------------------


class Held:
    """Keeps the writer busy until what was asked meanwhile waits in line; counts its commits."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.began, self.free = threading.Event(), threading.Event()
        self.commits = 0
        event.listen(database.writer, "commit", self._count)

    def _hold(self, _session: Session) -> None:
        self.began.set()
        assert self.free.wait(60)

    def _count(self, _connection: object) -> None:
        self.commits += 1

    async def all_of(self, *units: Callable[[Session], Any]) -> list[Any]:
        """How the units end that are asked while another one runs."""
        first = asyncio.create_task(self.database.write(self._hold))
        await asyncio.to_thread(self.began.wait, 60)
        waiting = [asyncio.create_task(self.database.write(unit)) for unit in units]
        await asyncio.sleep(0)
        self.free.set()
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)


def add(name: str) -> Callable[[Session], None]:
    return lambda session: session.add(project(name))


async def test_units_that_wait_for_the_writer_share_one_commit(database: Database) -> None:
    held = Held(database)
    assert await held.all_of(*(add(str(n)) for n in range(9))) == [None] * 9
    assert held.commits == 1
    assert len(await database.read(names)) == 9


async def test_a_unit_that_fails_takes_nothing_of_its_neighbours_with_it(
    database: Database,
) -> None:
    one, two, three = await Held(database).all_of(add("one"), add("one"), add("three"))
    assert (one, three) == (None, None)
    assert isinstance(two, IntegrityError)
    assert await database.read(names) == {"one", "three"}


async def test_when_the_shared_commit_fails_each_unit_fails_or_succeeds_by_itself(
    database: Database,
) -> None:
    def full(session: Session) -> None:
        """As SQLite does when the disk is full: it rolls everything back by itself."""
        session.add(project("full"))
        session.flush()
        session.connection().connection.driver_connection.rollback()
        raise OSError("disk full")

    one, two, three = await Held(database).all_of(add("one"), full, add("three"))
    assert (one, three) == (None, None)
    assert isinstance(two, OSError)
    assert await database.read(names) == {"one", "three"}


async def test_a_full_file_is_said_plainly_alone_and_among_others(database: Database) -> None:
    def too_much(session: Session) -> None:
        session.add_all(project(f"{number} {'x' * 100}") for number in range(200))
        session.flush()

    def too_much_at_once(session: Session) -> None:
        """One statement, which SQLite takes back without what came before it."""
        session.connection().exec_driver_sql(
            "INSERT INTO project (id, name, created_at) WITH RECURSIVE counted (n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 200) "
            "SELECT 'many_' || n, hex(zeroblob(100)) || n, '2026-01-01' FROM counted"
        )

    async with full_file(database):
        for unit in (too_much, too_much_at_once):
            with pytest.raises(Unavailable, match="storage is full"):
                await database.write(unit)
            for refused in await Held(database).all_of(unit, unit):
                assert isinstance(refused, Unavailable)
                assert refused.code == "storage_full"
    await database.write(too_much)
    assert len(await database.read(names)) == 200


async def test_what_was_asked_before_closing_is_done(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(database.writer)
    asked = [asyncio.create_task(database.write(add(str(n)))) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(database.close)
    await asyncio.gather(*asked)
    again = SqliteDatabase(tmp_path / "tidegate.db")
    assert len(await again.read(names)) == 5
    again.close()


# --- which SQLite ---------------------------------------------------------------------------------


def pretend(monkeypatch: pytest.MonkeyPatch, wheel: str | None, own: str) -> list[Any]:
    """Versions of the wheel's and Python's own SQLite; None when there is no wheel."""

    def module(version: str) -> Any:
        number = tuple(map(int, version.split(".")))
        return SimpleNamespace(sqlite_version=version, sqlite_version_info=number)

    found = [module(own)]
    monkeypatch.setattr(room, "sqlite3", found[0])
    modules: dict[str, ModuleType | None] = {"pysqlite3.dbapi2": None, "pysqlite3": None}
    if wheel:
        found.append(module(wheel))
        modules = {"pysqlite3": SimpleNamespace(dbapi2=found[1]), "pysqlite3.dbapi2": found[1]}  # type: ignore[dict-item]
    for name, fake in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, fake)
    return found


def test_this_machine_has_a_safe_sqlite() -> None:
    assert sqlite_driver().sqlite_version_info >= (3, 51, 3)
    assert sqlite3.sqlite_version_info


def test_the_wheel_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wheel = pretend(monkeypatch, "3.51.3", "3.60.0")
    assert sqlite_driver() is wheel


def test_pythons_own_sqlite_is_taken_when_the_wheel_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, _ = pretend(monkeypatch, "3.40.0", "3.51.3")
    assert sqlite_driver() is own


@pytest.mark.parametrize("wheel", [None, "3.40.0"])
def test_a_sqlite_that_can_corrupt_a_database_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, wheel: str | None
) -> None:
    pretend(monkeypatch, wheel, "3.51.2")
    with pytest.raises(StartError, match=r"SQLite 3\.51\.2 can corrupt.*pip install pysqlite3"):
        sqlite_driver()
