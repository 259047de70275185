"""Units of work on a real file: whole or not at all, one writer, readers that only read."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlmodel import Session, func, select, text

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.store import database as room
from tidegate_controlplane.store.database import Database, sqlite_driver
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.tables import ApiKey, Project

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def project(name: str) -> Project:
    return Project(id=f"prj_{name}", name=name, created_at=NOW)


def names(session: Session) -> set[str]:
    return set(session.exec(select(Project.name))) - {"default"}


async def test_what_a_unit_returns_is_usable_after_it(database: Database) -> None:
    def insert(session: Session) -> Project:
        row = project("one")
        session.add(row)
        return row

    assert (await database.write(insert)).name == "one"
    assert await database.read(names) == {"one"}


async def test_a_unit_that_raises_leaves_nothing_of_itself(database: Database) -> None:
    def fail(session: Session) -> None:
        session.add(project("one"))
        session.flush()
        assert names(session) == {"one"}
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await database.write(fail)
    assert await database.read(names) == set()


async def test_the_writer_works_on_after_a_unit_that_failed(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await database.write(lambda s: s.add_all([project("one"), project("one")]))
    await database.write(lambda s: s.add(project("two")))
    assert await database.read(names) == {"two"}


async def test_a_reader_cannot_write(database: Database) -> None:
    def insert(session: Session) -> None:
        session.add(project("one"))
        session.flush()

    with pytest.raises(OperationalError, match="readonly"):
        await database.read(insert)
    assert await database.read(names) == set()


async def test_a_reader_sees_one_moment_although_a_writer_commits_meanwhile(
    database: Database,
) -> None:
    loop = asyncio.get_running_loop()
    began, written = asyncio.Event(), threading.Event()

    def read(session: Session) -> tuple[set[str], set[str]]:
        first = names(session)
        loop.call_soon_threadsafe(began.set)
        assert written.wait(5)
        return first, names(session)

    reading = asyncio.create_task(database.read(read))
    await began.wait()
    await database.write(lambda s: s.add(project("one")))
    written.set()
    assert await reading == (set(), set())
    assert await database.read(names) == {"one"}


async def test_writers_take_turns_so_that_no_update_is_lost(database: Database) -> None:
    await database.write(lambda s: s.add(project("0")))

    def count_up(session: Session) -> None:
        row = session.exec(select(Project).where(Project.id == "prj_0")).one()
        row.name = str(int(row.name) + 1)

    await asyncio.gather(*(database.write(count_up) for _ in range(50)))
    assert await database.read(names) == {"50"}


async def test_a_writer_in_another_connection_waits_for_its_turn(
    database: Database, tmp_path: Path
) -> None:
    other = Database(tmp_path / "tidegate.db")
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


async def test_a_caller_that_leaves_does_not_stop_a_unit_that_has_begun(
    database: Database,
) -> None:
    loop = asyncio.get_running_loop()
    began, go_on = asyncio.Event(), threading.Event()

    def slow(session: Session) -> None:
        session.add(project("one"))
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(5)

    writing = asyncio.create_task(database.write(slow))
    await began.wait()
    writing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await database.write(names) == {"one"}


async def test_a_row_without_its_owner_is_refused(database: Database) -> None:
    orphan = ApiKey(id="k", project_id="nobody", name="x", role="admin", digest="", created_at=NOW)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await database.write(lambda s: s.add(orphan))


async def test_the_file_is_kept_as_the_design_wants_it(database: Database) -> None:
    def pragmas(session: Session) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [session.connection().execute(text(f"PRAGMA {n}")).scalar_one() for n in names]

    assert await database.write(pragmas) == ["wal", 2, 1]
    assert await database.read(pragmas) == ["wal", 2, 1]


async def test_closing_folds_the_log_into_the_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "tidegate.db")
    migrate(database.writer)
    await database.write(lambda s: s.add(project("one")))
    assert await database.read(names) == {"one"}
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tidegate.db"]


async def test_times_come_back_in_utc_whatever_their_zone_was(database: Database) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    await database.write(lambda s: s.add(Project(id="p", name="p", created_at=noon)))
    found = await database.read(lambda s: s.get_one(Project, "p").created_at)
    assert found == noon
    assert found.tzinfo is UTC


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(StatementError, match="without a zone"):
        await database.write(lambda s: s.add(Project(id="p", name="p", created_at=naive)))
    assert await database.read(lambda s: s.exec(select(func.count(Project.id))).one()) <= 1


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
