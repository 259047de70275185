"""The bridge from the engine's thread to the callers that wait on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Many

from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.timeline import Timeline
from tidegate_runtime.errors import GenerationFailed

Event = TokenOutput | GenerationFailed


class Generation:
    """The events of all the sequences of one call, in the order in which they happened.

    Iterating ends when every sequence is finished, and raises GenerationFailed when one failed.
    `timelines` has one entry for each sequence.
    """

    def __init__(self, sequences: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.timelines: list[Timeline] = []
        self._events: deque[Event] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._unfinished = sequences

    def take(self, events: Many[Event]) -> None:
        """Take events; called on the event loop."""
        self._events.extend(events)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> TokenOutput:
        if self._unfinished == 0:
            raise StopAsyncIteration
        while not self._events:
            self._arrived = self.loop.create_future()
            await self._arrived
        event = self._events.popleft()
        if isinstance(event, GenerationFailed):
            self._unfinished = 0
            raise event
        if event.finish_reason is not None:
            self._unfinished -= 1
        return event


def publish(events: Mapping[Generation, Many[Event]]) -> None:
    """Hand over the events of one step, from any thread: one wake-up for each event loop.

    Callers whose loop is gone miss theirs.
    """
    for loop in {generation.loop for generation in events}:
        batch = [(caller, found) for caller, found in events.items() if caller.loop is loop]
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: Many[tuple[Generation, Many[Event]]]) -> None:
    for generation, events in batch:
        generation.take(events)
