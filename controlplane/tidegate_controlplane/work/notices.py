"""Telling waiters in this process that an invocation is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Notices:
    """A bell for each invocation that somebody waits for."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.closing = False
        """The process stops, and nobody should wait any longer."""

    @contextmanager
    def listen(self, invocation_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the invocation finishes.

        Begin to listen, then read the row: a finish between the two is not missed.
        """
        bell = asyncio.Event()
        self._waiting.setdefault(invocation_id, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._waiting[invocation_id]
            bells.discard(bell)
            if not bells:
                del self._waiting[invocation_id]

    def finished(self, invocation_ids: Iterable[str]) -> None:
        """Ring for these; after the commit that finished them."""
        for invocation_id in invocation_ids:
            for bell in self._waiting.get(invocation_id, ()):
                bell.set()

    def waiting(self) -> list[str]:
        """The invocations that somebody waits for."""
        return list(self._waiting)

    def close(self) -> None:
        """Wake everybody: the process stops."""
        self.closing = True
        self.finished(list(self._waiting))
