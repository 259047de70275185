"""The states of one replica, what is in flight, and when the process is to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.protocol.replica import EXIT_CRASHED, EXIT_DRAINED, ReplicaState
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.status import StatusFile

log = logging.getLogger(__name__)

_ALLOWED: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.STARTING: frozenset({ReplicaState.LOADING, ReplicaState.FAILED}),
    ReplicaState.LOADING: frozenset(
        {ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.FAILED}
    ),
    ReplicaState.READY: frozenset({ReplicaState.DRAINING, ReplicaState.FAILED}),
    ReplicaState.DRAINING: frozenset({ReplicaState.FAILED}),
    ReplicaState.FAILED: frozenset(),
}


class Lifecycle:
    """Belongs to the event loop: every method is called on it.

    The process ends when `ended` is set; `exit_code` then says how.
    """

    def __init__(self, status: StatusFile, port: int) -> None:
        self._status = status
        self._port = port
        self.state = ReplicaState.STARTING
        self.message: str | None = None
        self.in_flight = 0
        self.exit_code = EXIT_DRAINED
        self.ended = asyncio.Event()
        self.draining = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def to(
        self, state: ReplicaState, *, reason: str | None = None, message: str | None = None
    ) -> None:
        """Change state and say so in the status file. Raises ValueError when not allowed."""
        if state not in _ALLOWED[self.state]:
            raise ValueError(f"a replica cannot go from {self.state} to {state}")
        self.state, self.message = state, message
        self._status.write(state, port=self._port, reason=reason, message=message)
        log.info("replica is %s%s", state, f": {message}" if message else "")

    def say(self, message: str) -> None:
        """Tell how loading goes, in the status file and to probers."""
        if self.state is ReplicaState.LOADING:
            self.message = message
            self._status.write(self.state, port=self._port, message=message)

    def drain(self) -> None:
        """Take no new work; the process ends when what is in flight has ended. Idempotent."""
        if self.state in {ReplicaState.LOADING, ReplicaState.READY}:
            self.to(ReplicaState.DRAINING)
            self.draining.set()

    def fail(self, reason: str, message: str, exit_code: int = EXIT_CRASHED) -> None:
        """Record a failure; the process is to end with `exit_code`."""
        if self.state is ReplicaState.FAILED:
            return
        self.to(ReplicaState.FAILED, reason=reason, message=message)
        self.end(exit_code)

    def end(self, exit_code: int) -> None:
        """Let the process end."""
        if not self.ended.is_set():
            self.exit_code = exit_code
            self.ended.set()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Hold one request in flight. Raises RequestRefused (503) unless the replica is ready."""
        if self.state is not ReplicaState.READY:
            why = f" ({self.message})" if self.message else ""
            raise RequestRefused(
                f"This replica is {self.state}{why}; try again, or another replica.",
                code=f"replica_{self.state}",
                status=503,
                retry_after_s=1,
            )
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False when `timeout_s` passed first."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
