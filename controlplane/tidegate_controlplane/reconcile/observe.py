"""Read everything: the rows, the processes and the demand of one deployment."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlmodel import Session

from tidegate.protocol.resources import (
    DeploymentPhase,
    ReplicaPhase,
    ResolvedPlan,
    RolloutPhase,
)
from tidegate.spec import Mode, RolloutSpec
from tidegate_controlplane.deployments.views import requested_of
from tidegate_controlplane.domain.adapters import beside
from tidegate_controlplane.domain.group import STARTING, ReplicaFact
from tidegate_controlplane.domain.history import Policy, Sight
from tidegate_controlplane.domain.plan import machine_bytes
from tidegate_controlplane.domain.reconcile import DeploymentFact, Watched
from tidegate_controlplane.domain.replicas import Change, Observation, Running
from tidegate_controlplane.domain.rollout import RolloutFact, stages
from tidegate_controlplane.domain.room import Room
from tidegate_controlplane.domain.schedule import scheduled_min
from tidegate_controlplane.gateway.endpoints import Demand, Endpoints
from tidegate_controlplane.reconcile.memory import DeploymentMemory
from tidegate_controlplane.store.backlog import Backlog, backlog
from tidegate_controlplane.store.deployments import all_living, recent_replicas, revisions_of
from tidegate_controlplane.store.rollouts import open_rollouts
from tidegate_controlplane.store.tables import Deployment, Replica, Rollout


@dataclass(frozen=True)
class Moment:
    """One moment on both clocks."""

    now_s: float
    """Monotonic, for durations."""
    utc: datetime
    """For schedules and records."""


@dataclass(frozen=True)
class Declared:
    """One deployment's rows."""

    row: Deployment
    replicas: list[Replica]
    backlog: Backlog | None
    rollout: Rollout | None
    """The one that has not ended."""
    plans: Mapping[str, ResolvedPlan]
    """Of each revision that a step may speak of."""

    @cached_property
    def replica_bytes(self) -> Mapping[str, int]:
        """Predicted memory that one replica takes of the machine, by revision, with the adapters
        that are declared now.
        """
        loaded = self.plan.adapters_bytes
        return {key: machine_bytes(beside(plan, loaded)) for key, plan in self.plans.items()}

    @cached_property
    def plan(self) -> ResolvedPlan:
        return ResolvedPlan.model_validate(self.row.plan)

    def left_places(self, ended: Collection[str]) -> list[str]:
        """Where it has no replicas any more, and is to have none; `ended` are ids of replicas."""
        wanted = {r.revision_id for r in self.replicas if not r.finished_at and r.id not in ended}
        if self.row.phase != DeploymentPhase.DELETING:
            wanted.add(self.row.serving_revision_id or self.row.revision_id)
            wanted |= {self.row.revision_id} if self.rollout else set()
        needed = {self.plans[key].provisioner for key in wanted}
        return [place for place in self.row.held_at if place not in needed]


def read_all(session: Session, now: datetime) -> list[Declared]:
    """Every living deployment, in one consistent view."""
    waiting, rollouts = backlog(session, now), open_rollouts(session)
    return [
        _declared(session, row, waiting.get(row.id), rollouts.get(row.id))
        for row in all_living(session)
    ]


def _declared(
    session: Session, row: Deployment, waiting: Backlog | None, rollout: Rollout | None
) -> Declared:
    replicas = recent_replicas(session, row.id)
    ids = {row.revision_id, row.serving_revision_id or row.revision_id}
    ids |= {replica.revision_id for replica in replicas if replica.finished_at is None}
    revisions = revisions_of(session, ids)
    plans = {key: ResolvedPlan.model_validate(each.plan) for key, each in revisions.items()}
    return Declared(row, replicas, waiting, rollout, plans)


def taken_bytes(everything: Sequence[Declared]) -> int:
    """Predicted memory that is taken by every replica whose process may still run."""
    return sum(
        declared.replica_bytes[replica.revision_id]
        for declared in everything
        for replica in declared.replicas
        if replica.finished_at is None
    )


def policy_of(declared: Declared) -> Policy:
    plan = declared.plan
    return Policy(
        min_replicas=plan.min_replicas,
        max_replicas=plan.max_replicas,
        max_sequences=plan.max_sequences,
        clear_s=plan.clear_s,
        target_in_flight=plan.target_in_flight,
        idle_timeout_s=plan.idle_timeout_s,
        cold_start_price_s=plan.cold_start_price_s,
        durable=declared.row.mode in (Mode.ASYNC, Mode.BATCH),
    )


def sight_of(
    declared: Declared,
    demand: Demand,
    seen: Mapping[str, Observation],
    memory: DeploymentMemory,
    moment: Moment,
) -> Sight:
    """A durable request that was claimed and has not reached a replica yet is in flight too."""
    waiting = declared.backlog or Backlog(0, 0, 0, 0.0)
    starting = [r for r in declared.replicas if ReplicaPhase(r.phase) in STARTING]
    ages = (memory.replica(r.id).since(ReplicaPhase.REQUESTED, moment.now_s) for r in starting)
    processes = [one for one in seen.values() if isinstance(one, Running)]
    return Sight(
        now_s=moment.now_s,
        in_flight=max(demand.in_flight, waiting.running - demand.held),
        held=demand.held,
        queued=waiting.queued,
        queued_tokens=waiting.queued_tokens,
        oldest_queued_s=waiting.oldest_s,
        idle_s=demand.idle_s,
        ready=sum(r.phase == ReplicaPhase.READY for r in declared.replicas),
        starting_ages_s=tuple(age_s or 0.0 for age_s in ages),
        cold_start_s=usual_cold_start_s(declared),
        held_tokens=demand.held_tokens,
        in_flight_tokens=demand.in_flight_tokens,
        arrivals=demand.arrivals,
        arrived_tokens=demand.arrived_tokens,
        finished_tokens=demand.finished_tokens,
        kv_used=max((one.kv_used for one in processes), default=0.0),
        kv_waiting=sum(one.waiting for one in processes),
        scheduled_min=scheduled_min(declared.plan.schedule, moment.utc),
    )


def usual_cold_start_s(declared: Declared) -> float | None:
    """The median of its own recent replicas; before the first, what the plan knew of the model."""
    measured = [r.cold_start_s for r in declared.replicas if r.cold_start_s is not None]
    return statistics.median(measured) if measured else declared.plan.cold_start_s


def deployment_fact(
    declared: Declared, desired: int, room: Room, watched: Watched, still_held: Iterable[str]
) -> DeploymentFact:
    row = declared.row
    return DeploymentFact(
        phase=DeploymentPhase(row.phase),
        revision_id=row.revision_id,
        serving_revision_id=row.serving_revision_id,
        deleting=row.phase == DeploymentPhase.DELETING,
        desired=desired,
        room=room,
        rollout=rollout_fact(declared.rollout) if declared.rollout else None,
        watched=watched,
        still_held=tuple(still_held),
    )


def rollout_fact(row: Rollout) -> RolloutFact:
    options = RolloutSpec.model_validate(row.options)
    return RolloutFact(
        from_id=row.from_revision_id,
        to_id=row.to_revision_id,
        strategy=options.strategy,
        stages=stages(options),
        phase=RolloutPhase(row.phase),
        step=row.step,
        requested=requested_of(row.requested),
        reason=row.reason,
        message=row.message,
    )


def replica_facts(
    declared: Declared,
    changes: Mapping[str, Change],
    memory: DeploymentMemory,
    endpoints: Endpoints,
    now: float,
) -> Sequence[ReplicaFact]:
    """Each replica as it will be once its change is written."""
    return [
        _replica_fact(declared.row, replica, changes.get(replica.id), memory, endpoints, now)
        for replica in declared.replicas
    ]


def _replica_fact(
    deployment: Deployment,
    row: Replica,
    change: Change | None,
    memory: DeploymentMemory,
    endpoints: Endpoints,
    now: float,
) -> ReplicaFact:
    phase = change.phase if change else ReplicaPhase(row.phase)
    remembered = memory.replica(row.id)
    failed_ago_s = remembered.since(ReplicaPhase.FAILED, now)
    if change and change.phase is ReplicaPhase.FAILED:
        failed_ago_s = 0.0
    forgiven_at, finished_at = deployment.forgiven_at, row.finished_at
    return ReplicaFact(
        id=row.id,
        revision_id=row.revision_id,
        phase=phase,
        in_flight=endpoints.in_flight_on(deployment.id, row.id),
        refused=change.refused if change else row.refused,
        ready_for_s=_ready_for_s(row, memory, now),
        failed_ago_s=failed_ago_s,
        reason=change.reason if change else row.reason,
        message=change.message if change else row.message,
        forgiven=bool(forgiven_at and finished_at and finished_at <= forgiven_at),
    )


def _ready_for_s(row: Replica, memory: DeploymentMemory, now: float) -> float:
    if row.ready_at and row.finished_at:
        return (row.finished_at - row.ready_at).total_seconds()
    return memory.replica(row.id).since(ReplicaPhase.READY, now) or 0.0
