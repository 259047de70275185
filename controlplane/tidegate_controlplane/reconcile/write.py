"""Write one step: every change of a deployment and its replicas, with its events, at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from tidegate.protocol.resources import (
    ComparisonView,
    DeploymentPhase,
    ReplicaPhase,
    RolloutPhase,
    Severity,
)
from tidegate_controlplane.domain.autoscale import Decision
from tidegate_controlplane.domain.reconcile import Step
from tidegate_controlplane.domain.replicas import NO_CAPACITY, Change, Running
from tidegate_controlplane.reconcile.conditions import conditions_after
from tidegate_controlplane.reconcile.observe import Declared
from tidegate_controlplane.store.decisions import add_decision
from tidegate_controlplane.store.deployments import add_event, change_deployment, change_replica
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.rollouts import change_rollout
from tidegate_controlplane.store.tables import Deployment, Replica, Rollout

TROUBLE = (DeploymentPhase.FAILED, DeploymentPhase.DEGRADED)
FINAL = (ReplicaPhase.TERMINATED, ReplicaPhase.FAILED)


@dataclass(frozen=True)
class Seen:
    """The process of a replica, to be noted on its row."""

    running: Mapping[str, Running]
    cold_start_s: Mapping[str, float]


@dataclass
class Outcome:
    """The change as it will be written, so that nothing is written when nothing changes."""

    declared: Declared
    step: Step
    decision: Decision
    changes: Mapping[str, Change]
    seen: Seen
    now: datetime
    is_news: bool
    """Whether the autoscaler's decision is to be recorded."""
    comparison: ComparisonView | None = None
    """The figures of a rollout's stage, when it is time to note them."""
    removed: frozenset[str] = frozenset()
    """Places that hold nothing for it any more."""
    created: list[Replica] = field(default_factory=list)

    def write(self, session: Session) -> None:
        """The unit of work. Raises StaleRow when someone else wrote meanwhile."""
        self.created.clear()  # of a run that was rolled back
        for replica in self.declared.replicas:
            if change := self.changes.get(replica.id):
                self._change_replica(session, replica, change)
        for replica in self.declared.replicas:
            if replica.id in self.step.drain:
                self._drain(session, replica)
        for revision_id, number in self.step.create.items():
            self.created += [self._create(session, revision_id) for _ in range(number)]
        if self.declared.rollout and (moved := self.rollout_values()):
            self._change_rollout(session, self.declared.rollout, moved)
        if self.is_news:
            add_decision(session, self.declared.row.id, self.decision, self.now)
        values = self.deployment_values()
        if values:
            self._change_deployment(session, self.declared.row, values)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes; a decision may be recorded all the same."""
        replicas = self.changes or self.step.create or self.step.drain
        return not (replicas or self.rollout_values() or self.deployment_values())

    def rollout_values(self) -> dict[str, Any]:
        """The columns of the rollout that change."""
        row, step = self.declared.rollout, self.step.rollout
        if row is None or step is None:
            return {}
        wanted: dict[str, Any] = {
            "phase": step.phase.value,
            "step": step.step,
            "weight": round(100 * self.step.weights[row.to_revision_id], 2),
            "reason": step.reason,
            "message": step.message,
        }
        if self.comparison:
            wanted["comparison"] = self.comparison.model_dump(mode="json")
        return {key: value for key, value in wanted.items() if getattr(row, key) != value}

    @property
    def created_bytes(self) -> int:
        """Predicted memory of the replicas that were requested."""
        return sum(self.declared.replica_bytes[replica.revision_id] for replica in self.created)

    def deployment_values(self) -> dict[str, Any]:
        """The columns of the deployment that change."""
        row, step = self.declared.row, self.step
        reached = step.serving_revision_id == row.revision_id
        wanted: dict[str, Any] = {
            "phase": step.phase.value,
            "message": step.message,
            "serving_revision_id": step.serving_revision_id,
            "desired_replicas": self._desired(),
            "observed_generation": row.generation if reached else row.observed_generation,
            "held_at": self._held_at(),
        }
        values = {key: value for key, value in wanted.items() if getattr(row, key) != value}
        conditions = conditions_after(row, step, self.now)
        if conditions != row.conditions:
            values["conditions"] = conditions
        if step.phase is DeploymentPhase.DELETED:
            values["deleted_at"] = self.now
        return values

    def _desired(self) -> int:
        deleting = self.declared.row.phase == DeploymentPhase.DELETING
        return 0 if deleting else self.decision.desired

    def _held_at(self) -> list[str]:
        """Before the first start at a place, its name; after the last trace of it, no longer."""
        kept = [place for place in self.declared.row.held_at if place not in self.removed]
        starting = {self.declared.plans[key].provisioner for key in self.step.create}
        return [*kept, *sorted(starting.difference(kept))]

    def _change_replica(self, session: Session, row: Replica, change: Change) -> None:
        values: dict[str, Any] = {"phase": change.phase.value}
        values |= {"reason": change.reason, "message": change.message, "refused": change.refused}
        if running := self.seen.running.get(row.id):
            values |= {
                "pid": running.pid,
                "process_start": running.process_start,
                "port": running.port,
                "where": running.where,
            }
        if change.phase is ReplicaPhase.READY:
            values |= {"ready_at": self.now, "cold_start_s": self.seen.cold_start_s.get(row.id)}
        if change.phase in FINAL:
            values["finished_at"] = self.now
        change_replica(session, row, self.now, **values)
        add_event(
            session,
            self.declared.row,
            self.now,
            change.reason or f"Replica{change.phase.value.capitalize()}",
            _replica_sentence(row, change),
            severity=_severity(change),
            replica_id=row.id,
        )

    def _drain(self, session: Session, row: Replica) -> None:
        """One that was never started has nothing to drain: it ends at once."""
        values: dict[str, Any] = {"phase": ReplicaPhase.DRAINING.value}
        if row.phase == ReplicaPhase.REQUESTED:
            values = {"phase": ReplicaPhase.TERMINATED.value, "finished_at": self.now}
        change_replica(session, row, self.now, **values)
        add_event(
            session,
            self.declared.row,
            self.now,
            f"Replica{row.phase.capitalize()}",
            f"{row.phase}: {self._why_drained(row)}",
            replica_id=row.id,
        )

    def _why_drained(self, row: Replica) -> str:
        if self.declared.row.phase == DeploymentPhase.DELETING:
            return "the deployment is being deleted"
        if self.step.rollout:
            return f"the rollout is {self.step.rollout.phase.value}: {self.step.rollout.message}"
        if row.revision_id != self.step.serving_revision_id:
            return "another revision serves"
        return self.decision.sentence

    def _create(self, session: Session, revision_id: str) -> Replica:
        deployment = self.declared.row
        replica = Replica(
            id=new_id("rep"),
            deployment_id=deployment.id,
            revision_id=revision_id,
            phase=ReplicaPhase.REQUESTED.value,
            created_at=self.now,
            updated_at=self.now,
        )
        session.add(replica)
        session.flush()
        add_event(
            session,
            deployment,
            self.now,
            "ReplicaRequested",
            f"requested: {self.decision.sentence}",
            replica_id=replica.id,
        )
        return replica

    def _change_rollout(self, session: Session, row: Rollout, values: dict[str, Any]) -> None:
        before = row.phase, row.step
        change_rollout(session, row, self.now, **values)
        if (row.phase, row.step) != before:
            phase = RolloutPhase(row.phase)
            backwards = phase in (RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)
            add_event(
                session,
                self.declared.row,
                self.now,
                "Rollout" + phase.value.title().replace("_", ""),
                f"{before[0]} → {row.phase}: {row.message}",
                severity=Severity.WARNING if backwards else Severity.INFO,
            )

    def _change_deployment(self, session: Session, row: Deployment, values: dict[str, Any]) -> None:
        before = row.phase
        change_deployment(session, row, self.now, **values)
        if row.phase != before:
            trouble = self.step.phase in TROUBLE
            add_event(
                session,
                row,
                self.now,
                self.step.reason,
                f"{before} → {row.phase}: {self.step.message}",
                severity=Severity.WARNING if trouble else Severity.INFO,
            )


def _replica_sentence(row: Replica, change: Change) -> str:
    if change.phase is ReplicaPhase.READY and row.cold_start_s is not None:
        return f"ready after {row.cold_start_s:.1f} s"
    return change.message or change.phase.value


def _severity(change: Change) -> Severity:
    if change.reason == NO_CAPACITY:
        return Severity.WARNING
    return Severity.ERROR if change.phase is ReplicaPhase.FAILED else Severity.INFO
