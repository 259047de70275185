"""Work that nobody waits for: it may fail, since the reconciler repeats what it wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

CALL_S = 5.0
"""For a call to an agent that ought to answer at once."""


class Errands:
    """Runs such work on this event loop, and keeps it from being collected."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def run(self, work: Awaitable[Any]) -> None:
        """Begin it."""
        task = asyncio.ensure_future(answered(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def done(self) -> None:
        """Until everything that was begun has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)


async def answered(call: Awaitable[Any], within_s: float = CALL_S) -> Any:
    """What an actor answers; None when it does not."""
    from ray.exceptions import RayError

    with contextlib.suppress(RayError, TimeoutError):
        async with asyncio.timeout(within_s):
            return await call
