"""Telling waiters in this process what becomes of an invocation, and how far its run has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidegate_controlplane.work.partial import Partial


@dataclass(eq=False)
class Bell:
    """Rings for one waiter; whoever is woken looks for himself."""

    wants_text: bool
    """Ring also when a replica has said more."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    has_changed: bool = False
    """The row is another; the waiter takes this back before it reads the row."""

    async def rings_within(self, seconds: float) -> None:
        """Return when it rings, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return
        self.woken.clear()


class Notices:
    """The bells of each invocation that somebody waits for, and the runs that go on here."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Bell]] = {}
        self._partials: dict[str, Partial] = {}
        self.closing = False
        """The process stops, and nobody should wait any longer."""

    @property
    def waiting(self) -> int:
        """How many listen."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def listen(self, invocation_id: str, *, wants_text: bool = False) -> Iterator[Bell]:
        """A bell that rings when the invocation changes.

        Begin to listen, then read the row: a change between the two is not missed.
        """
        bell = Bell(wants_text)
        self._waiting.setdefault(invocation_id, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._waiting[invocation_id]
            bells.discard(bell)
            if not bells:
                del self._waiting[invocation_id]

    @contextmanager
    def following(self, invocation_id: str, partial: Partial | None) -> Iterator[None]:
        """While the block runs, `partial` is what can be read of the invocation's run."""
        if partial is None:
            yield
            return
        self._partials[invocation_id] = partial
        self.changed([invocation_id])
        try:
            yield
        finally:
            if self._partials.get(invocation_id) is partial:
                del self._partials[invocation_id]

    def partial(self, invocation_id: str) -> Partial | None:
        """How far the run has come that goes on here."""
        return self._partials.get(invocation_id)

    def changed(self, invocation_ids: Iterable[str]) -> None:
        """Ring for these; after the commit that changed them."""
        for invocation_id in invocation_ids:
            for bell in self._waiting.get(invocation_id, ()):
                bell.has_changed = True
                bell.woken.set()

    def heard(self, invocation_id: str) -> None:
        """Ring for whoever reads along."""
        for bell in self._waiting.get(invocation_id, ()):
            if bell.wants_text:
                bell.woken.set()

    def waited_for(self) -> list[str]:
        """The invocations that somebody waits for."""
        return list(self._waiting)

    def close(self) -> None:
        """Wake everybody: the process stops."""
        self.closing = True
        self.changed(list(self._waiting))
