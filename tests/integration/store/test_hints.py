"""Control planes on one PostgreSQL hear of each other's work; without it they only look later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Postgres

from tidegate_controlplane.store import hints
from tidegate_controlplane.store.hints import Hints


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Hints, asyncio.Event]]:
    bell = asyncio.Event()
    found = Hints(url, bell.set)
    task = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(60):
            await bell.wait()
        bell.clear()
        yield found, bell
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database("template1")


async def test_another_control_plane_hears_that_something_was_queued_and_its_own_does_not(
    url: str,
) -> None:
    async with listening(url) as (one, own), listening(url) as (_, others):
        one.say()
        async with asyncio.timeout(60):
            await others.wait()
        await asyncio.sleep(3 * hints.PAUSE_S)
        assert not own.is_set()


async def test_hints_go_on_after_the_connection_was_lost(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "AWAY_S", 0.01)
    async with listening(url) as (_, bell):
        name = url.split("/")[3].split("?")[0]
        postgres.run(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        async with asyncio.timeout(60):
            await bell.wait()
