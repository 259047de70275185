"""Units of work, on each engine: whole or not at all, as if in turns, readers that only read."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlmodel import Session, func, select

from tidegate_controlplane.store.database import Database
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

    with pytest.raises(DBAPIError, match=r"read-?only"):
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
        assert written.wait(60)
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


async def test_a_caller_that_leaves_does_not_stop_a_unit_that_has_begun(
    database: Database,
) -> None:
    loop = asyncio.get_running_loop()
    began, go_on = asyncio.Event(), threading.Event()

    def slow(session: Session) -> None:
        session.add(project("one"))
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(60)

    writing = asyncio.create_task(database.write(slow))
    await began.wait()
    writing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await database.write(names) == {"one"}


async def test_a_row_without_its_owner_is_refused(database: Database) -> None:
    orphan = ApiKey(id="k", project_id="nobody", name="x", role="admin", digest="", created_at=NOW)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await database.write(lambda s: s.add(orphan))


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
