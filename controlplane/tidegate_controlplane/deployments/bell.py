"""Wake those who wait for something to change, instead of letting them poll."""

from __future__ import annotations

import asyncio


class Bell:
    """One event per key; whoever waits is woken by the next ring."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    def ring(self, key: str) -> None:
        if event := self._waiting.pop(key, None):
            event.set()

    def ring_all(self) -> None:
        """For whoever waits: something may have changed, it is not known where."""
        for key in list(self._waiting):
            self.ring(key)

    def listen(self, key: str) -> asyncio.Event:
        """The event of the next ring. Take it before reading, so that no ring falls in between."""
        return self._waiting.setdefault(key, asyncio.Event())


async def heard(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether it rang within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
