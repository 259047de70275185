"""The unit of work that points a deployment at another revision, and the rollout that follows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session

from tidegate.protocol.resources import DeploymentPhase, ResolvedPlan, RolloutPhase
from tidegate.spec import RolloutSpec
from tidegate_controlplane.deployments.conditions import CURRENT, condition, replaced
from tidegate_controlplane.domain.plan import machine_bytes
from tidegate_controlplane.domain.room import refusal
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store import rollouts as rollout_rows
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Deployment, Revision, Rollout


def take_over(
    session: Session, row: Deployment, revision: Revision, options: RolloutSpec, now: datetime
) -> dict[str, Any]:
    """The columns of the deployment that change when `revision` becomes the wanted one.

    A rollout that has not ended gives way: its revision is replaced, the one that serves stays. A
    new one begins unless that revision serves already, or none has served yet. Former failures are
    forgiven, so that a revision that once failed is tried again.
    """
    give_way(session, row, now, "Superseded", f"revision {revision.number} takes its place")
    values: dict[str, Any] = {"revision_id": revision.id, "forgiven_at": now}
    serving = row.serving_revision_id
    if serving is None or serving == revision.id:
        return values
    message = f"revision {revision.number} is to serve, by {options.strategy.value}"
    session.add(
        Rollout(
            id=new_id("rol"),
            project_id=row.project_id,
            deployment_id=row.id,
            from_revision_id=serving,
            to_revision_id=revision.id,
            options=options.model_dump(mode="json"),
            phase=RolloutPhase.PREFLIGHT.value,
            reason="RollingOut",
            message=message,
            created_at=now,
            updated_at=now,
        )
    )
    rows.add_event(session, row, now, "RolloutStarted", message)
    current = condition(CURRENT, "RollingOut", message, now, status=False)
    return {**values, "conditions": replaced(row.conditions, current)}


def give_way(session: Session, row: Deployment, now: datetime, reason: str, message: str) -> None:
    """End the deployment's rollout, if it has one, before its new revision serves."""
    rollout = rollout_rows.open_rollout(session, row.id)
    if rollout is None:
        return
    rollout_rows.change_rollout(
        session,
        rollout,
        now,
        phase=RolloutPhase.ROLLED_BACK.value,
        weight=0.0,
        reason=reason,
        message=message,
    )
    session.flush()
    rows.add_event(session, row, now, f"Rollout{reason}", f"the rollout ends: {message}")


def was_rolled_back(session: Session, row: Deployment) -> bool:
    """Whether the declared revision was tried and does not serve."""
    serves = row.serving_revision_id in (None, row.revision_id)
    return not serves and rollout_rows.open_rollout(session, row.id) is None


def check_room(
    session: Session,
    row: Deployment | None,
    plan: ResolvedPlan,
    options: RolloutSpec,
    total_bytes: int,
    *,
    same_run: bool,
) -> None:
    """Raises Invalid when there can never be room beside what other deployments always keep."""
    others = [
        ResolvedPlan.model_validate(other.plan)
        for other in rows.all_living(session)
        if other.phase != DeploymentPhase.DELETING and (row is None or other.id != row.id)
    ]
    reserved = sum(other.min_replicas * machine_bytes(other) for other in others)
    former = None
    if row is not None and row.serving_revision_id and not same_run:
        serving = session.get_one(Revision, row.serving_revision_id)
        former = ResolvedPlan.model_validate(serving.plan)
    issue = refusal(
        plan, former, options.strategy, reserved_bytes=reserved, total_bytes=total_bytes
    )
    if issue:
        raise Invalid(f"{issue.field}: {issue.message}", issues=[issue], param=issue.field)
