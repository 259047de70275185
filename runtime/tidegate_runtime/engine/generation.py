"""The bridge from the engine's thread to one waiting caller on an event loop."""

from __future__ import annotations

import asyncio
import contextlib

from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.errors import GenerationFailed

_Event = TokenOutput | GenerationFailed


class Generation:
    """The events of all the sequences of one call, in the order in which they happened.

    Iterating ends when every sequence is finished, and raises GenerationFailed when one failed.
    """

    def __init__(self, sequences: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._unfinished = sequences

    def publish(self, event: _Event) -> None:
        """Hand over an event, from any thread. A caller whose loop is gone misses it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenOutput:
        if self._unfinished == 0:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, GenerationFailed):
            self._unfinished = 0
            raise event
        if event.finish_reason is not None:
            self._unfinished -= 1
        return event
