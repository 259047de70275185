"""Telling other control planes on the same PostgreSQL that something was queued: a hint, no more.

Each of them polls the queue anyway, so a hint that is lost costs one pause. NOTIFY is sent by a
connection of its own and not with the insertion: a transaction that notifies commits under a lock
that all such transactions share, so durable commits would wait for each other's disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psycopg

log = logging.getLogger(__name__)
CHANNEL = "tidegate_queued"
PAUSE_S = 0.05
"""Between two hints at least, however much is queued."""
AWAY_S = 1.0


class Hints:
    """`say` that something was queued; `heard` is called when another control plane says so."""

    def __init__(self, url: str, heard: Callable[[], None]) -> None:
        self._url = url
        self._heard = heard
        self._asked = False

    def say(self) -> None:
        self._asked = True

    async def run(self) -> None:
        """Until it is cancelled; a server that is away is tried again."""
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                log.info("no hints from other control planes for now: %s", error)
            await asyncio.sleep(AWAY_S)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._heard()  # for what was said before
            own = connection.info.backend_pid
            while True:
                async for hint in connection.notifies(timeout=PAUSE_S):
                    if hint.pid != own:
                        self._heard()
                if self._asked:
                    self._asked = False
                    await connection.execute(f"NOTIFY {CHANNEL}")
