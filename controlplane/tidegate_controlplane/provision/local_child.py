"""One replica as a child process: what is known of it, and how it ended."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.protocol.replica import (
    EXIT_DRAINED,
    EXIT_REFUSED,
    ReplicaReady,
    ReplicaState,
    ReplicaStatus,
)
from tidegate_controlplane.domain.replicas import Exited, NoCapacity
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.child import ChildProcess
from tidegate_controlplane.provision.log import last_line


@dataclass
class LocalChild:
    """A replica on this machine, from the moment it is asked for."""

    launch: Launch
    token: str = field(repr=False)
    started_at: float
    process: ChildProcess | None = None
    """None until it is made."""
    making: asyncio.Task[None] | None = None
    unmade: Exited | NoCapacity | None = None
    """Why it could not be made."""
    unwanted: bool = False
    """It is to be killed as soon as it is made."""
    warmed: bool = False
    status: ReplicaStatus | None = None
    checked_at: float = 0.0
    failed_checks: int = 0
    check: asyncio.Task[None] | None = None
    said: ReplicaReady | None = None
    """The answer to its last health check."""
    deadline: float | None = None
    """It is killed when it still runs then: it was asked to drain, or said that it failed."""

    @property
    def port(self) -> int | None:
        return self.status.port if self.status else None

    @property
    def says(self) -> ReplicaState:
        return self.status.state if self.status else ReplicaState.STARTING


def send(child: LocalChild, number: signal.Signals) -> None:
    """Signal a process; one that is still being made is killed then."""
    if child.process:
        child.process.send(number)
    else:
        child.unwanted = True


def has_ended(child: LocalChild) -> bool:
    """Whether its process ended, or could not be made."""
    if child.process is None:
        return child.unmade is not None
    return child.process.returncode is not None


def read_status(path: Path, pid: int) -> ReplicaStatus | None:
    """The status file of that process; None before it wrote one."""
    try:
        status = ReplicaStatus.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return status if status.pid == pid else None


def exited(child: LocalChild, code: int, log: Path) -> Exited:
    """How a process that exited with `code` ended, by its status and the end of its log."""
    refused = code == EXIT_REFUSED
    if child.status and child.says is ReplicaState.FAILED:
        reason = child.status.reason or "Crashed"
        return Exited(code, reason, child.status.message or f"exited with {code}", refused)
    if code == EXIT_DRAINED:
        return Exited(code, "Ended", "it ended without being asked to")
    how = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
    said = last_line(log)
    message = f"{how}; its log ends: {said}" if said else how
    return Exited(code, "Crashed", message, refused)
