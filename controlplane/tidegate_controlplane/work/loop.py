"""A level-triggered loop: it looks again after each pause, or as soon as it is woken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PAUSE_AFTER_ERROR_S = 1.0


class Loop:
    """Calls `tick` again and again. A tick that fails is logged, and the next one tries anew.

    A tick looks at what is there and does what is missing, so none has to succeed.
    """

    def __init__(self, name: str, tick: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._name = name
        self._tick = tick
        self._every_s = every_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Do not wait for the end of the pause."""
        self._woken.set()

    async def stop(self) -> None:
        """Interrupt the tick that runs; no further one begins."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._tick()
            except Exception:
                log.exception("%s failed; trying again", self._name)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            else:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._every_s):
                await self._woken.wait()
        except TimeoutError:
            return
