from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import select
from tests.unit.controlplane.full_file import full_file

from tidegate.spec import Mode, Task
from tidegate_controlplane.errors import OutcomeUnknown
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import UsageRecord

NOON = datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC)


class HandClock:
    moment = NOON

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return 0.0


def served(name: str, mode: Mode = Mode.SERVERLESS) -> Served:
    return Served(f"dep_{name}", "prj", name, mode, Task.GENERATE, NOON)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(found.writer)
    yield found
    found.close()


@pytest.fixture
def book(database: Database) -> UsageBook:
    return UsageBook(database, HandClock())


async def rows(database: Database) -> list[UsageRecord]:
    return await database.read(lambda session: list(session.exec(select(UsageRecord))))


async def total(book: UsageBook) -> list[tuple[str, int, int, int]]:
    page = await book.summary("prj", None, 100)
    return [(v.deployment, v.requests, v.prompt_tokens, v.completion_tokens) for v in page.data]


async def test_one_hour_of_one_key_on_one_deployment_is_one_row(
    book: UsageBook, database: Database
) -> None:
    for _ in range(3):
        book.record("prj", served("smol"), "key_a", 10, 1)
        await book.flush()
    book.record("prj", served("smol"), "key_b", 10, 1)
    book.record("prj", served("smol"), None, 10, 1)
    await book.flush()
    found = {row.key_id: row for row in await rows(database)}
    assert set(found) == {"key_a", "key_b", ""}
    assert (found["key_a"].requests, found["key_a"].prompt_tokens) == (3, 30)
    assert found["key_a"].completion_tokens == 3
    assert found["key_a"].hour == datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_the_summary_holds_what_is_written_and_what_is_not(book: UsageBook) -> None:
    book.record("prj", served("smol"), "key_a", 10, 1)
    await book.flush()
    book.record("prj", served("smol"), "key_a", 5, 2)
    book.record("prj_other", served("smol"), "key_z", 1000, 1000)
    assert await total(book) == [("smol", 2, 15, 3)]


async def test_a_summary_during_a_flush_counts_nothing_twice(book: UsageBook) -> None:
    for _ in range(20):
        book.record("prj", served("smol"), "key_a", 1, 1)
        _, seen = await asyncio.gather(book.flush(), total(book))
    assert seen == [("smol", 20, 20, 20)]


async def test_a_flush_whose_caller_goes_away_neither_loses_nor_doubles(book: UsageBook) -> None:
    for _ in range(20):
        book.record("prj", served("smol"), "key_a", 1, 1)
        flushing = asyncio.create_task(book.flush())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
    await book.flush()
    assert await total(book) == [("smol", 20, 20, 20)]


def record_many(book: UsageBook) -> None:
    for number in range(200):
        book.record("prj", served(f"model-{number}"), "key_a", 10, 1)


async def test_what_finds_the_disk_full_is_kept_and_written_when_there_is_room(
    book: UsageBook, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with full_file(database), book.running(every_s=0.01):
        record_many(book)
        async with asyncio.timeout(60):
            while "storage is full" not in caplog.text:
                await asyncio.sleep(0.01)
    record_many(book)
    await book.flush()
    assert {(row.requests, row.prompt_tokens) for row in await rows(database)} == {(2, 20)}
    assert len(await rows(database)) == 200


async def test_what_may_have_been_written_is_not_counted_twice(
    book: UsageBook, database: Database
) -> None:
    async def commit_unanswered(unit: Any) -> None:
        await database.write(unit)
        raise OutcomeUnknown("the database went away while it committed")

    book._db = SimpleNamespace(write=commit_unanswered)  # type: ignore[assignment]
    book.record("prj", served("smol"), "key_a", 10, 1)
    await book.flush()
    book._db = database
    await book.flush()
    assert [row.requests for row in await rows(database)] == [1]


async def test_the_book_is_written_regularly_and_at_the_end(
    book: UsageBook, database: Database
) -> None:
    async with book.running(every_s=0.01):
        book.record("prj", served("smol"), "key_a", 1, 1)
        async with asyncio.timeout(60):
            while not await rows(database):
                await asyncio.sleep(0.01)
        book.record("prj", served("late"), "key_a", 1, 1)
    assert {row.deployment for row in await rows(database)} == {"smol", "late"}


async def test_the_summary_goes_on_where_its_page_ended(book: UsageBook) -> None:
    for name in ("c", "a", "a-b", "ab"):
        book.record("prj", served(name), "key_a", 1, 1)
    book.record("prj", served("a", Mode.ASYNC), "key_a", 1, 1)
    seen: list[tuple[str, Mode]] = []
    after: str | None = None
    for _ in range(5):
        page = await book.summary("prj", after, 1)
        seen += [(view.deployment, view.mode) for view in page.data]
        after = page.next
    assert (page.has_more, page.next) == (False, None)
    assert sorted(seen) == [
        ("a", Mode.ASYNC),
        ("a", Mode.SERVERLESS),
        ("a-b", Mode.SERVERLESS),
        ("ab", Mode.SERVERLESS),
        ("c", Mode.SERVERLESS),
    ]
