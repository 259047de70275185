"""Who holds the lock of a stack: this machine's live process, its dead one, or somebody else.

A self-managed back end keeps a lock file beside the state and names its maker in the error:
`created by USER@HOST (pid PID)`. A control plane that was killed in mid-update leaves one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import psutil

_MADE_BY = re.compile(r"created by (\S+)@(\S+) \(pid (\d+)\)")


class Holder(StrEnum):
    """Whose the locks are."""

    DEAD = "dead"
    """Processes of this machine that have ended: they may be taken away."""
    RUNNING = "running"
    """One of this machine that runs: it will end."""
    ANOTHER = "another"
    """Not of this machine, or not told: only a person knows whether it still runs."""


@dataclass(frozen=True)
class Lock:
    user: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"{self.user}@{self.host} (pid {self.pid})"


def locks_in(said: str) -> list[Lock]:
    """The locks that Pulumi's refusal names."""
    return [Lock(user, host, int(pid)) for user, host, pid in _MADE_BY.findall(said)]


def holder_of(
    locks: list[Lock], host: str, is_running: Callable[[int], bool] = psutil.pid_exists
) -> Holder:
    """Whose the locks are, seen from `host`."""
    if not locks or any(each.host != host for each in locks):
        return Holder.ANOTHER
    return Holder.RUNNING if any(is_running(each.pid) for each in locks) else Holder.DEAD
