"""Facts about a process of this machine, from /proc."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

START_TIME_FIELD = 22
"""In /proc/PID/stat, counted from 1. Source: proc_pid_stat(5)."""


def start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is no such process.

    With the pid it names a process once and for all, since pids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    state, started = after_name[0], after_name[START_TIME_FIELD - 3]
    return None if state == "Z" else int(started)


def is_alive(pid: int, process_start: int) -> bool:
    """Whether that very process still runs."""
    return start_ticks(pid) == process_start


def kill_exactly(pid: int, process_start: int, timeout_s: float = 10.0) -> bool:
    """End that very process by SIGKILL and wait for its end; False when it did not run any more.

    A pidfd pins the process between the check and the signal. Blocks for at most `timeout_s`.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_alive(pid, process_start):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], timeout_s)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
