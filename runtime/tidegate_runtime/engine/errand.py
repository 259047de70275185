"""Work for the engine's thread that is no step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

log = logging.getLogger(__name__)


class Errand:
    """Work that is done between two steps. What it raises is its caller's, not the engine's."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.done: Future[None] = Future()

    def run(self) -> None:
        """Do it, unless nobody waits for it any more."""
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            self._work()
        except Exception as error:
            log.exception("work between two steps failed")
            self.done.set_exception(error)
        else:
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """It will never be done."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)
