"""What a replica's row becomes, given what is seen of its process."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.protocol.resources import ReplicaPhase

P = ReplicaPhase
NO_CAPACITY = "NoCapacity"
"""The reason of a replica that its place had no capacity for."""
NODE_LOST = "NodeLost"
"""The reason of a replica that was lost with the machine it ran on."""


@dataclass(frozen=True)
class Missing:
    """There is no process: it was never started, or its control plane died."""


@dataclass(frozen=True)
class Running:
    """The process lives. `phase` is what it says of itself: starting, loading, ready, draining."""

    phase: ReplicaPhase
    pid: int | None = None
    """A process of this machine, where it is one."""
    process_start: int | None = None
    port: int | None = None
    healthy: bool = True
    overdue: bool = False
    """It has not become ready within the start timeout."""
    kv_used: float = 0.0
    """Share of its KV cache in use."""
    waiting: int = 0
    """Sequences that wait inside it for room in a batch."""
    where: str | None = None
    """For people: `node 10.0.0.3`; None on this machine."""


@dataclass(frozen=True)
class NoCapacity:
    """The place has no capacity for it now, and holds nothing for it: no fault of the model."""

    message: str
    """What is missing, and what there is."""


@dataclass(frozen=True)
class Exited:
    """The process ended. `refused` when starting again cannot help."""

    code: int
    reason: str
    message: str
    refused: bool = False


Observation = Missing | Running | NoCapacity | Exited


@dataclass(frozen=True)
class Change:
    """A replica's next phase and why. A process whose row is final is ended by the reconciler."""

    phase: ReplicaPhase
    reason: str | None = None
    message: str | None = None
    refused: bool = False


def next_phase(phase: ReplicaPhase, seen: Observation) -> Change | None:
    """The change that the observation calls for; None when the row already tells the truth."""
    if phase in (P.TERMINATED, P.FAILED):
        return None
    match seen:
        case Missing():
            return _without_process(phase)
        case NoCapacity():
            return _without_capacity(phase, seen)
        case Exited():
            return _after_exit(phase, seen)
        case Running():
            return _while_running(phase, seen)


def _without_process(phase: ReplicaPhase) -> Change | None:
    if phase is P.REQUESTED:
        return None
    if phase is P.DRAINING:
        return Change(P.TERMINATED, "Drained", "the process is gone")
    return Change(P.FAILED, "Lost", "the process is gone")


def _without_capacity(phase: ReplicaPhase, seen: NoCapacity) -> Change:
    if phase is P.DRAINING:
        return Change(P.TERMINATED, "Drained", "it never had capacity to start")
    return Change(P.FAILED, NO_CAPACITY, seen.message)


def _after_exit(phase: ReplicaPhase, seen: Exited) -> Change:
    if phase is P.DRAINING:
        return Change(P.TERMINATED, "Drained", f"exited with status {seen.code}")
    return Change(P.FAILED, seen.reason, seen.message, refused=seen.refused)


def _while_running(phase: ReplicaPhase, seen: Running) -> Change | None:
    if phase is P.REQUESTED:
        return Change(P.STARTING)
    if phase is P.DRAINING:
        return None
    if seen.phase is P.DRAINING:
        return Change(P.DRAINING, "Draining", "it was asked to end by someone else")
    if phase is P.READY:
        return (
            None if seen.healthy else Change(P.FAILED, "Unhealthy", "it failed its health checks")
        )
    if seen.phase is P.READY and seen.healthy:
        return Change(P.READY)
    if seen.overdue:
        return Change(P.FAILED, "StartTimeout", "it did not become ready in time")
    if phase is P.STARTING and seen.phase is P.LOADING:
        return Change(P.LOADING)
    return None
