"""The orphans of this process's descendants become its own children."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Declare this process the parent of orphans below it (prctl(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Strays:
    """Ends of orphans that nobody here waits for, such as a builder whose replica was killed.

    Each is collected on the second look that finds it, so that whoever does wait for it is first.
    """

    def __init__(self) -> None:
        self._seen: int | None = None

    def collect(self, awaited: Collection[int]) -> int | None:
        """Look once; returns the pid that was collected, if any. `awaited` are never touched."""
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        pid = None if found is None else found.si_pid
        again = pid is not None and pid == self._seen
        self._seen = pid
        if pid is None or not again or pid in awaited:
            return None
        self._seen = None
        os.waitpid(pid, os.WNOHANG)
        return pid
