"""The contract of a provisioner: one per place where replicas run.

A provisioner starts, watches and ends replicas; it decides nothing. Every call may be the second
one with the same arguments, and a call about a replica it does not know is no error: the reconciler
repeats itself until what it sees is what it wants. What takes long goes on beneath: of these calls
only `sweep`, `end_all` and `close` wait for an end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate.protocol.resources import LogLine, ResolvedPlan, Severity
from tidegate.spec import Mode
from tidegate_controlplane.domain.replicas import Observation
from tidegate_controlplane.gateway.endpoints import Endpoint


@dataclass(frozen=True)
class Launch:
    """All that is needed to start one replica."""

    replica_id: str
    deployment_id: str
    revision_id: str
    """Of the deployment; its replicas are all alike."""
    mode: Mode
    model_name: str
    source: str
    task: str
    pooling: str | None
    """Of a model that embeds, where its deployment says it."""
    revision: str | None
    """Of the model, where its source has such."""
    digest: str
    """That of the model the plan was made for; a replica serves no other."""
    plan: ResolvedPlan
    """`plan.provisioner` says where; threads, memory and GPUs are those of one replica."""


@dataclass(frozen=True)
class FormerReplica:
    """A replica that an earlier control plane started, from its row."""

    replica_id: str
    deployment_id: str
    provisioner: str
    pid: int | None = None
    process_start: int | None = None


@dataclass(frozen=True)
class Holding:
    """What a place may hold for a deployment as a whole, such as a stack of resources."""

    deployment_id: str
    provisioner: str


@dataclass(frozen=True)
class Notice:
    """Something that happened at a place, for the events of a deployment."""

    deployment_id: str
    reason: str
    """A CamelCase word for machines."""
    message: str
    severity: Severity = Severity.INFO
    replica_id: str | None = None


class StartFailed(Exception):
    """A replica could not be started at all; the message says why and what to do."""


class Provisioner(Protocol):
    """Inherit from it: what a place has no need of is answered here."""

    async def start(self, launch: Launch) -> None:
        """Start a replica, unless it is already started. Raises StartFailed.

        A place without capacity says so when it is observed: `NoCapacity`.
        """
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
        """Drop what is held for one that has ended, but keep its log."""
        ...

    async def remove(self, holding: Holding) -> str | None:
        """Take away what is held for a deployment that has no replica here any more.

        None once nothing is held; until then a sentence on what is still there, or on why it cannot
        be taken away and what to do. Asked again until it says None, also by a later control plane.
        """
        del holding
        return None

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        """Delete the logs and files of every other replica."""
        ...

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        """End what an earlier control plane left behind; nothing is ever adopted.

        `former` are those that have a row; a place that can find its own by name ends those too.
        Raises StartFailed when the place cannot be asked.
        """
        ...

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        """Whole lines from a byte offset of its log; empty when there is none."""
        ...

    async def shortage(self, plan: ResolvedPlan) -> str | None:
        """Why no replica of such a plan would find capacity now, as far as the place can tell."""
        del plan
        return None

    def notices(self) -> list[Notice]:
        """What happened since the last call, oldest first."""
        return []

    async def end_all(self) -> None:
        """End every replica and wait for it; more may be started afterwards."""
        ...

    async def close(self) -> None:
        """End every replica and wait for it."""
        ...
