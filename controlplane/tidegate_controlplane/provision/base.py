"""The contract of a provisioner.

A provisioner starts, watches and ends replica processes; it decides nothing. Every call may be the
second one with the same arguments, and a call about a replica it does not know is no error: the
reconciler repeats itself until what it sees is what it wants.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from tidegate.protocol.resources import LogLine, ResolvedPlan
from tidegate_controlplane.domain.replicas import Observation
from tidegate_controlplane.gateway.endpoints import Endpoint


@dataclass(frozen=True)
class Launch:
    """All that is needed to start one replica."""

    replica_id: str
    model_name: str
    source: str
    task: str
    revision: str | None
    digest: str
    """That of the model the plan was made for; a replica serves no other."""
    plan: ResolvedPlan


@dataclass(frozen=True)
class FormerProcess:
    """A process that an earlier control plane started, from its row."""

    replica_id: str
    pid: int
    process_start: int


class StartFailed(Exception):
    """A replica could not be started at all; the message says why and what to do."""


class Provisioner(Protocol):
    async def start(self, launch: Launch) -> None:
        """Start a replica, unless it is already started. Raises StartFailed."""
        ...

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        """What is true now of each; quick, and never raises."""
        ...

    def known(self) -> list[str]:
        """Every replica it holds something for."""
        ...

    def endpoint(self, replica_id: str) -> Endpoint | None:
        """Where a ready replica answers."""
        ...

    async def drain(self, replica_id: str) -> None:
        """Ask it to finish what it has and end; it takes no new work from now on."""
        ...

    async def kill(self, replica_id: str) -> None:
        """End it now."""
        ...

    async def forget(self, replica_id: str) -> None:
        """Drop what is held for one whose process has ended, but keep its log."""
        ...

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        """Delete the logs and files of every other replica."""
        ...

    async def sweep(self, former: list[FormerProcess]) -> None:
        """End what an earlier control plane left behind; nothing is ever adopted."""
        ...

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        """Whole lines from a byte offset of its log; empty when there is none."""
        ...

    async def end_all(self) -> None:
        """End every replica and wait for it; more may be started afterwards."""
        ...

    async def close(self) -> None:
        """End every replica and wait for it."""
        ...
