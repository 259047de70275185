"""A child process, watched through a pidfd: its end is an event, its pid is never another's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from tidegate_controlplane.provision.process import start_ticks


class ChildProcess:
    """A child of this process. Made and used on the event loop."""

    def __init__(self, pid: int, on_exit: Callable[[], None] | None = None) -> None:
        """`pid` was not waited for yet. Raises OSError, and ends it, when it cannot be watched."""
        self.pid = pid
        self.process_start = start_ticks(pid) or 0
        self.returncode: int | None = None
        """The exit status, or minus the signal that ended it; None while it runs."""
        self._on_exit = on_exit
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._handle = os.pidfd_open(pid)
        except OSError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise
        self._loop.add_reader(self._handle, self._collect)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def wait(self) -> None:
        """Until it has ended."""
        await self._ended.wait()

    def _collect(self) -> None:
        found = os.waitid(os.P_PIDFD, self._handle, os.WEXITED)
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        exited = found is not None and found.si_code == os.CLD_EXITED
        status = 0 if found is None else found.si_status
        self.returncode = status if exited else -status
        self._ended.set()
        if self._on_exit:
            self._on_exit()
