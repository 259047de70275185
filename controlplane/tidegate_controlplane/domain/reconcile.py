"""One step from what is observed towards what is declared: pure, idempotent, level-triggered.

The loop around it reads everything, asks `step`, and applies the answer; after a crash at any
instruction the next step sees what is true and goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase

P, D = ReplicaPhase, DeploymentPhase
LIVE = frozenset({P.REQUESTED, P.STARTING, P.LOADING, P.READY})
STARTING = LIVE - {P.READY}
STABLE_S = 60.0
"""A replica that was ready for this long and then failed starts the count of failures anew."""
RECREATING = (D.UPDATING, "Recreating", "the former revision drains before the new one starts")
HOPELESS_FAILURES = 3
"""Failed starts in a row after which held requests are told instead of held on."""


@dataclass(frozen=True)
class ReplicaFact:
    """A replica's row, after its process was looked at."""

    id: str
    revision_id: str
    phase: ReplicaPhase
    in_flight: int = 0
    refused: bool = False
    ready_for_s: float = 0.0
    """How long it was ready, or has been."""
    failed_ago_s: float | None = None
    reason: str | None = None
    message: str | None = None
    forgiven: bool = False
    """Its failure was before someone asked to try again."""


@dataclass(frozen=True)
class DeploymentFact:
    """A deployment's row, and what the autoscaler wants of it."""

    phase: DeploymentPhase
    revision_id: str
    serving_revision_id: str | None
    deleting: bool
    desired: int
    recreate: bool
    """Drain the former revision before the new one starts."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failure in a row: base · 2^(n-1), at most `max_s`."""

    base_s: float
    max_s: float

    def after(self, failures: int) -> float:
        return min(self.max_s, self.base_s * 2.0 ** (failures - 1)) if failures else 0.0


@dataclass(frozen=True)
class Step:
    """What to do now, and how the deployment stands."""

    create: int
    """Replicas of the wanted revision to request."""
    drain: tuple[str, ...]
    serving_revision_id: str | None
    phase: DeploymentPhase
    reason: str
    message: str
    failures: int
    """Failures in a row, the newest of them not forgiven."""
    hopeless: str | None
    """Why no replica will come soon, for those who wait; None while there is hope."""
    retry_in_s: float | None
    """When the next start is due, while it is held back after failures."""


def step(deployment: DeploymentFact, replicas: Sequence[ReplicaFact], backoff: Backoff) -> Step:
    """The next step; `replicas` in order of creation, final ones included."""
    if deployment.deleting:
        return _deleting(deployment, replicas)
    group = _grouped(deployment, replicas)
    failures, last = consecutive_failures(group.wanted)
    retry_in_s = _retry_in(failures, last, backoff)
    serving = _serving(deployment, group)
    held_back = retry_in_s is not None or (last is not None and last.refused)
    blocked = held_back or (deployment.recreate and group.former_remains)
    drain = [r.id for r in _surplus(group.live, deployment.desired)]
    if serving == deployment.revision_id or deployment.recreate:
        drain += [r.id for r in group.former]
    phase, reason, message = _phase(deployment, serving, group, last)
    return Step(
        create=0 if blocked else max(0, deployment.desired - len(group.live)),
        drain=tuple(drain),
        serving_revision_id=serving,
        phase=phase,
        reason=reason,
        message=message,
        failures=failures,
        hopeless=_hopeless(group, failures, last, retry_in_s),
        retry_in_s=retry_in_s,
    )


@dataclass(frozen=True)
class _Grouped:
    """The replicas of one deployment, by what a step asks about them."""

    wanted: Sequence[ReplicaFact]
    """Of the wanted revision, final ones included."""
    live: Sequence[ReplicaFact]
    """Of the wanted revision."""
    former: Sequence[ReplicaFact]
    """Live, of other revisions."""
    former_remains: bool
    """Whether a process of another revision still runs, draining ones included."""

    @property
    def ready(self) -> int:
        return sum(r.phase is P.READY for r in self.live)

    @property
    def answering(self) -> bool:
        """Whether any replica can take a request now."""
        return any(r.phase is P.READY for r in (*self.live, *self.former))


def _grouped(deployment: DeploymentFact, replicas: Sequence[ReplicaFact]) -> _Grouped:
    wanted = [r for r in replicas if r.revision_id == deployment.revision_id]
    others = [r for r in replicas if r.revision_id != deployment.revision_id]
    former = [r for r in others if r.phase in LIVE]
    return _Grouped(
        wanted=wanted,
        live=[r for r in wanted if r.phase in LIVE],
        former=former,
        former_remains=bool(former) or any(r.phase is P.DRAINING for r in others),
    )


def consecutive_failures(wanted: Sequence[ReplicaFact]) -> tuple[int, ReplicaFact | None]:
    """Failures in a row of one revision, newest replica first, and the latest of them to happen.

    A replica that is ready now, ended well, or was ready for `STABLE_S` ends the row.
    """
    row: list[ReplicaFact] = []
    for replica in reversed(wanted):
        if replica.phase in STARTING:
            continue
        if replica.phase is not P.FAILED or replica.forgiven:
            break
        row.append(replica)
        if replica.ready_for_s >= STABLE_S:
            break
    return len(row), min(row, key=_failed_ago_s, default=None)


def _failed_ago_s(replica: ReplicaFact) -> float:
    return math.inf if replica.failed_ago_s is None else replica.failed_ago_s


def _deleting(deployment: DeploymentFact, replicas: Sequence[ReplicaFact]) -> Step:
    live = [r for r in replicas if r.phase in LIVE]
    draining = [r for r in replicas if r.phase is P.DRAINING]
    gone = not live and not draining
    return Step(
        create=0,
        drain=tuple(r.id for r in live),
        serving_revision_id=deployment.serving_revision_id,
        phase=D.DELETED if gone else D.DELETING,
        reason="Deleted" if gone else "Draining",
        message="deleted" if gone else f"{len(live) + len(draining)} replicas still to end",
        failures=0,
        hopeless="the deployment is being deleted",
        retry_in_s=None,
    )


def _retry_in(failures: int, last: ReplicaFact | None, backoff: Backoff) -> float | None:
    if last is None or last.failed_ago_s is None:
        return None
    remaining = backoff.after(failures) - last.failed_ago_s
    return remaining if remaining > 0 else None


def _serving(deployment: DeploymentFact, group: _Grouped) -> str | None:
    """The wanted revision once it can carry the traffic, or at once when there is none to carry."""
    can_carry = group.ready >= deployment.desired or not group.former
    return deployment.revision_id if can_carry else deployment.serving_revision_id


def _surplus(live: Sequence[ReplicaFact], desired: int) -> list[ReplicaFact]:
    """Those above the desired count: not yet ready first, then the least busy, then the newest."""
    newest_first = list(reversed(live))
    newest_first.sort(key=lambda r: (r.phase is P.READY, r.in_flight))
    return newest_first[: max(0, len(live) - desired)]


def _phase(
    deployment: DeploymentFact,
    serving: str | None,
    group: _Grouped,
    last: ReplicaFact | None,
) -> tuple[DeploymentPhase, str, str]:
    """The phase, a CamelCase reason and a sentence."""
    if last and last.refused:
        phase = D.DEGRADED if group.answering else D.FAILED
        return phase, last.reason or "Refused", last.message or "the replica refused to start"
    if serving != deployment.revision_id:
        return _rolling_out(deployment, last)
    if group.ready and group.ready >= deployment.desired:
        return D.READY, "Ready", _ready_sentence(group.ready)
    if deployment.desired == 0 and not (last and group.live):
        return D.IDLE, "Idle", "no replicas, and a request wakes it"
    if last:
        return D.DEGRADED, last.reason or "Failing", _cause(last)
    if group.ready:
        message = f"{_ready_sentence(group.ready)}, {deployment.desired} wanted"
        return D.READY, "ScalingUp", message
    if deployment.recreate and group.former_remains:
        return RECREATING
    return _starting(deployment)


def _rolling_out(
    deployment: DeploymentFact, last: ReplicaFact | None
) -> tuple[DeploymentPhase, str, str]:
    if last:
        return D.DEGRADED, "RolloutFailing", f"the new revision does not start: {_cause(last)}"
    if deployment.recreate:
        return RECREATING
    return D.UPDATING, "RollingOut", "the new revision is starting; the former one serves"


def _starting(deployment: DeploymentFact) -> tuple[DeploymentPhase, str, str]:
    if deployment.phase in (D.PENDING, D.PLANNING, D.PROVISIONING):
        return D.PROVISIONING, "Starting", "the first replica is starting"
    if deployment.phase is D.FAILED:
        return D.PROVISIONING, "Starting", "trying again"
    return D.WAKING, "Waking", "a replica is starting"


def _ready_sentence(ready: int) -> str:
    return f"{ready} replica{'s' if ready != 1 else ''} ready"


def _cause(failed: ReplicaFact) -> str:
    return f"{failed.reason}: {failed.message}"


def _hopeless(
    group: _Grouped, failures: int, last: ReplicaFact | None, retry_in_s: float | None
) -> str | None:
    """Crashes leave hope as soon as another start is due: a request that comes then is held.

    Otherwise a deployment at zero, whose requests are all refused, would never be tried again.
    """
    if last is None or group.answering:
        return None
    if last.refused:
        return f"it cannot start: {last.message}"
    if failures >= HOPELESS_FAILURES and retry_in_s is not None:
        return f"its replicas failed {failures} times in a row: {_cause(last)}"
    return None
