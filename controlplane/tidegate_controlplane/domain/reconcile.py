"""One step from what is observed towards what is declared: pure, idempotent, level-triggered.

The loop around it reads everything, asks `step`, and applies the answer; after a crash at any
instruction the next step sees what is true and goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase, RolloutPhase
from tidegate.spec import Strategy
from tidegate_controlplane.domain.group import (
    HOPELESS_FAILURES,
    LIVE,
    STARTING,
    Backoff,
    Group,
    ReplicaFact,
    cause,
    group,
)
from tidegate_controlplane.domain.replicas import NO_CAPACITY
from tidegate_controlplane.domain.rollout import Observed, RolloutFact, RolloutStep, advance
from tidegate_controlplane.domain.room import Room

P, D = ReplicaPhase, DeploymentPhase


@dataclass(frozen=True)
class Watched:
    """What was seen of the present stage of a rollout."""

    baked_s: float = 0.0
    compared: int = 0
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class DeploymentFact:
    """A deployment's row, and what the autoscaler wants of it."""

    phase: DeploymentPhase
    revision_id: str
    """The declared one. Without a rollout it serves, unless it was rolled back."""
    serving_revision_id: str | None
    deleting: bool
    desired: int
    room: Room
    rollout: RolloutFact | None = None
    """The one that has not ended."""
    watched: Watched = Watched()
    still_held: tuple[str, ...] = ()
    """What places hold for it that it has no replicas at, a sentence each."""


@dataclass(frozen=True)
class Step:
    """What to do now, and how the deployment stands."""

    create: Mapping[str, int]
    """Replicas to request, by revision id."""
    drain: tuple[str, ...]
    serving_revision_id: str | None
    phase: DeploymentPhase
    reason: str
    message: str
    failures: int
    """Failures in a row of the revision that is to answer, the newest of them not forgiven."""
    hopeless: str | None
    """Why no replica will come soon, for those who wait; None while there is hope."""
    retry_in_s: float | None
    """When the next start is due, while it is held back after failures."""
    weights: Mapping[str, float]
    """Shares of the revisions in the requests."""
    rollout: RolloutStep | None = None
    """Where the rollout stands after this step; None when there is none to change."""


def step(deployment: DeploymentFact, replicas: Sequence[ReplicaFact], backoff: Backoff) -> Step:
    """The next step; `replicas` in order of creation, final ones included."""
    if deployment.deleting:
        return _deleting(deployment, replicas)
    rollout = _advanced(deployment, replicas, backoff)
    serving = _serving(deployment, rollout)
    wanted = rollout.wanted if rollout else {serving: deployment.desired}
    fleet = _Fleet(
        wanted=wanted,
        groups={key: group(replicas, key, backoff) for key in wanted},
        others=[r for r in replicas if r.revision_id not in wanted and r.phase in LIVE],
        draining=[r for r in replicas if r.phase is P.DRAINING],
        clears_first=_clears_first(deployment, rollout),
    )
    create = _creations(fleet, deployment.room)
    lead = fleet.groups[_lead(wanted, serving)]
    phase, reason, message = _phase(deployment, rollout, fleet, lead, create)
    return Step(
        create={key: number for key, number in create.items() if number},
        drain=tuple(_drained(fleet, deployment, create)),
        serving_revision_id=serving,
        phase=phase,
        reason=reason,
        message=message,
        failures=lead.failures,
        hopeless=None if fleet.answering else _hopeless(lead),
        retry_in_s=lead.retry_in_s,
        weights=rollout.weights if rollout else {serving: 1.0},
        rollout=rollout,
    )


@dataclass(frozen=True)
class _Fleet:
    """All replicas of a deployment, by what is wanted of them."""

    wanted: Mapping[str, int]
    groups: Mapping[str, Group]
    others: Sequence[ReplicaFact]
    """Live ones of revisions that nobody wants."""
    draining: Sequence[ReplicaFact]
    clears_first: bool
    """Others end before a wanted one starts."""

    @property
    def ready(self) -> int:
        return sum(group.ready for group in self.groups.values())

    @property
    def carries(self) -> bool:
        """Whether the wanted revisions do without the others."""
        return all(self.groups[key].ready >= number for key, number in self.wanted.items())

    @property
    def answering(self) -> bool:
        """Whether any replica can take a request now."""
        return self.ready > 0 or any(r.phase is P.READY for r in self.others)

    @property
    def is_starting(self) -> bool:
        return any(r.phase in STARTING for group in self.groups.values() for r in group.live)

    @property
    def former_remains(self) -> bool:
        """Whether a process of a revision that nobody wants still runs."""
        return bool(self.others) or any(r.revision_id not in self.wanted for r in self.draining)


def _advanced(
    deployment: DeploymentFact, replicas: Sequence[ReplicaFact], backoff: Backoff
) -> RolloutStep | None:
    rollout = deployment.rollout
    if rollout is None:
        return None
    seen = Observed(
        stable=group(replicas, rollout.from_id, backoff).side,
        new=group(replicas, rollout.to_id, backoff).side,
        desired=deployment.desired,
        fits=deployment.room.fits(rollout.to_id),
        shortage=deployment.room.shortage(rollout.to_id),
        settling=any(r.phase is P.DRAINING for r in replicas),
        baked_s=deployment.watched.baked_s,
        compared=deployment.watched.compared,
        fault=deployment.watched.fault,
    )
    return advance(rollout, seen)


def _serving(deployment: DeploymentFact, rollout: RolloutStep | None) -> str:
    if rollout and deployment.rollout and rollout.phase is RolloutPhase.PROMOTED:
        return deployment.rollout.to_id
    return deployment.serving_revision_id or deployment.revision_id


def _lead(wanted: Mapping[str, int], serving: str) -> str:
    """The revision whose fate is the deployment's: the one that serves, or all that is wanted."""
    return serving if serving in wanted else next(iter(wanted))


def _clears_first(deployment: DeploymentFact, rollout: RolloutStep | None) -> bool:
    moving = rollout is not None and rollout.phase is not RolloutPhase.PROMOTED
    return bool(moving and deployment.rollout and deployment.rollout.strategy is Strategy.RECREATE)


# --- replicas -------------------------------------------------------------------------------------


def _creations(fleet: _Fleet, room: Room) -> dict[str, int]:
    """Missing replicas that may start now and that there is room for, the first named first."""
    found = dict.fromkeys(fleet.wanted, 0)
    if fleet.clears_first and fleet.former_remains:
        return found
    for key, number in fleet.wanted.items():
        own = fleet.groups[key]
        if not own.held_back:
            found[key] = min(max(0, number - len(own.live)), room.fits(key))
            room = room.after(key, found[key])
    return found


def _drained(fleet: _Fleet, deployment: DeploymentFact, create: Mapping[str, int]) -> Sequence[str]:
    surplus = [i for key, number in fleet.wanted.items() for i in fleet.groups[key].surplus(number)]
    if fleet.carries or fleet.clears_first:
        return [*surplus, *(r.id for r in fleet.others)]
    return [*surplus, *_making_way(fleet, deployment.room, create)]


def _making_way(fleet: _Fleet, room: Room, create: Mapping[str, int]) -> Sequence[str]:
    """One of the others when a missing replica has no room beside them, and would have without.

    One at a time, and none while a start or an end is under way: what that frees or brings is
    seen first.
    """
    if any(create.values()) or fleet.is_starting or fleet.draining:
        return []
    short = [key for key in _missing(fleet) if not fleet.groups[key].held_back]
    freed = sum(room.replica_bytes[r.revision_id] for r in fleet.others)
    fits_then = bool(short) and room.free_bytes + freed >= room.replica_bytes[short[0]]
    if not fits_then and not _can_spare_one(fleet):
        return []
    rest = sorted(fleet.others, key=lambda r: (r.phase is P.READY, r.in_flight))
    return [r.id for r in rest[:1]]


def _can_spare_one(fleet: _Fleet) -> bool:
    """Whether one of the others may end because a place has no capacity beside them.

    What it would free nobody knows, so the last one that answers never does.
    """
    failed = [fleet.groups[key].last for key in _missing(fleet)]
    lacking = any(last is not None and last.reason == NO_CAPACITY for last in failed)
    ready = fleet.ready + sum(r.phase is P.READY for r in fleet.others)
    return lacking and ready >= max(2, sum(fleet.wanted.values()))


def _missing(fleet: _Fleet) -> list[str]:
    wanted = fleet.wanted.items()
    return [key for key, number in wanted if len(fleet.groups[key].live) < number]


def _deleting(deployment: DeploymentFact, replicas: Sequence[ReplicaFact]) -> Step:
    live = [r for r in replicas if r.phase in LIVE]
    draining = [r for r in replicas if r.phase is P.DRAINING]
    ended = not live and not draining
    gone = ended and not deployment.still_held
    left = f"{len(live) + len(draining)} replicas still to end"
    return Step(
        create={},
        drain=tuple(r.id for r in live),
        serving_revision_id=deployment.serving_revision_id,
        phase=D.DELETED if gone else D.DELETING,
        reason="Deleted" if gone else "Removing" if ended else "Draining",
        message="deleted" if gone else "; ".join(deployment.still_held) if ended else left,
        failures=0,
        hopeless="the deployment is being deleted",
        retry_in_s=None,
        weights={},
    )


# --- how it stands --------------------------------------------------------------------------------


def _phase(
    deployment: DeploymentFact,
    rollout: RolloutStep | None,
    fleet: _Fleet,
    lead: Group,
    create: Mapping[str, int],
) -> tuple[DeploymentPhase, str, str]:
    """The phase, a CamelCase reason and a sentence."""
    last, desired = lead.last, deployment.desired
    if last and last.refused:
        phase = D.DEGRADED if fleet.answering else D.FAILED
        return phase, last.reason or "Refused", last.message or "the replica refused to start"
    no_room = _no_room(deployment, fleet, create)
    if rollout and rollout.is_open:
        return _rolling_out(rollout, fleet, no_room)
    if lead.ready and lead.ready >= desired:
        return D.READY, "Ready", _ready_sentence(lead.ready)
    if desired == 0 and not (last and lead.live):
        return D.IDLE, "Idle", "no replicas, and a request wakes it"
    if last:
        return D.DEGRADED, last.reason or "Failing", cause(last)
    if no_room:
        return D.DEGRADED, "NoRoom", f"{_ready_sentence(lead.ready)}, {desired} wanted: {no_room}"
    if lead.ready:
        message = f"{_ready_sentence(lead.ready)}, {desired} wanted"
        return D.READY, "ScalingUp", message
    return _starting(deployment)


def _rolling_out(
    rollout: RolloutStep, fleet: _Fleet, no_room: str | None
) -> tuple[DeploymentPhase, str, str]:
    failing = next((g.last for g in fleet.groups.values() if g.last and g.held_back), None)
    if failing:
        return D.DEGRADED, "RolloutFailing", f"{rollout.message}; {cause(failing)}"
    if no_room:
        return D.DEGRADED, "NoRoom", f"{rollout.message}; {no_room}"
    return D.UPDATING, rollout.reason, rollout.message


def _no_room(deployment: DeploymentFact, fleet: _Fleet, create: Mapping[str, int]) -> str | None:
    """Why a missing replica is not even requested; None when it is, or will be in a moment."""
    if fleet.draining or fleet.is_starting or any(create.values()):
        return None
    for key in _missing(fleet):
        if not deployment.room.fits(key) and not _making_way(fleet, deployment.room, create):
            return deployment.room.shortage(key)
    return None


def _starting(deployment: DeploymentFact) -> tuple[DeploymentPhase, str, str]:
    if deployment.phase in (D.PENDING, D.PLANNING, D.PROVISIONING):
        return D.PROVISIONING, "Starting", "the first replica is starting"
    if deployment.phase is D.FAILED:
        return D.PROVISIONING, "Starting", "trying again"
    return D.WAKING, "Waking", "a replica is starting"


def _ready_sentence(ready: int) -> str:
    return f"{ready} replica{'s' if ready != 1 else ''} ready"


def _hopeless(lead: Group) -> str | None:
    """Crashes leave hope as soon as another start is due: a request that comes then is held.

    Otherwise a deployment at zero, whose requests are all refused, would never be tried again.
    """
    last = lead.last
    if last is None:
        return None
    if last.refused:
        return f"it cannot start: {last.message}"
    if lead.crashes >= HOPELESS_FAILURES and lead.retry_in_s is not None:
        return f"its replicas failed {lead.crashes} times in a row: {cause(last)}"
    return None
