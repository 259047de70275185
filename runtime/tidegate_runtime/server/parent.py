"""A replica never outlives the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.2


def die_with(parent_pid: int) -> None:
    """End this process at once, without cleaning up, when `parent_pid` is no longer its parent.

    Twice over: the kernel's signal works even while this process hangs, but it is tied to the
    parent's *thread* that forked; the watcher sees what is left.
    """
    tie_to(parent_pid)
    threading.Thread(target=_watch, args=(parent_pid,), name="parent", daemon=True).start()


def tie_to(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if os.getppid() != parent_pid:
        os._exit(1)


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    os._exit(1)
