"""Is the process that wrote a pid file still there? A pid alone may belong to another by now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_STATE, _START_TIME = 0, 19
"""Positions in `/proc/PID/stat` after the command's closing bracket: fields 3 and 22."""


@dataclass(frozen=True)
class ProcessId:
    """A process for certain: its pid, and when it began (clock ticks since boot)."""

    pid: int
    start_time: int

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return start_time_of(self.pid) == self.start_time


def start_time_of(pid: int) -> int | None:
    """When a running process began, in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[_STATE] in ("Z", "X") else int(fields[_START_TIME])


def read_pid_file(path: Path) -> ProcessId | None:
    """The process that a pid file names, None when there is no such file or it is unreadable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ProcessId(int(data["pid"]), int(data["start_time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
