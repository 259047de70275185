"""Rows of rollouts. As in `store.deployments`, each function is part of a unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from tidegate.protocol.resources import RolloutPhase
from tidegate_controlplane.domain.states import ROLLOUT, check_transition, is_final
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.deployments import swap
from tidegate_controlplane.store.tables import Deployment, Rollout


def open_rollout(session: Session, deployment_id: str) -> Rollout | None:
    """The one that has not ended."""
    return session.exec(
        select(Rollout).where(
            Rollout.deployment_id == deployment_id, col(Rollout.finished_at).is_(None)
        )
    ).first()


def open_rollouts(session: Session) -> dict[str, Rollout]:
    """Every one that has not ended, by deployment id."""
    found = session.exec(select(Rollout).where(col(Rollout.finished_at).is_(None))).all()
    return {rollout.deployment_id: rollout for rollout in found}


def newest_rollout(
    session: Session, deployment_id: str, *, promoted_to: str | None = None
) -> Rollout | None:
    """The last to begin; with `promoted_to`, the last that made that revision serve."""
    query = select(Rollout).where(Rollout.deployment_id == deployment_id)
    if promoted_to is not None:
        query = query.where(
            Rollout.to_revision_id == promoted_to, Rollout.phase == RolloutPhase.PROMOTED.value
        )
    return session.exec(query.order_by(col(Rollout.id).desc())).first()


def rollout_of(session: Session, project_id: str, rollout_id: str) -> Rollout | None:
    row = session.get(Rollout, rollout_id)
    return row if row and row.project_id == project_id else None


def rollouts_page(
    session: Session, project_id: str, deployment: str | None, after: str | None, limit: int
) -> Sequence[tuple[Rollout, Deployment]]:
    """At most `limit` after the id `after`, oldest first, of living deployments."""
    query = (
        select(Rollout, Deployment)
        .join(Deployment, col(Deployment.id) == Rollout.deployment_id)
        .where(Rollout.project_id == project_id, col(Deployment.deleted_at).is_(None))
    )
    if deployment:
        query = query.where(Deployment.name == deployment)
    if after:
        query = query.where(Rollout.id > after)
    return session.exec(query.order_by(Rollout.id).limit(limit)).all()


def change_rollout(session: Session, row: Rollout, now: datetime, **values: Any) -> None:
    """Compare-and-swap on the version; raises StaleRow, or ImpossibleTransition for a phase."""
    if "phase" in values:
        after = RolloutPhase(values["phase"])
        check_transition(ROLLOUT, RolloutPhase(row.phase), after)
        if is_final(ROLLOUT, after):
            values["finished_at"] = now
    before = row.phase
    swap(session, Rollout, row, {**values, "updated_at": now})
    outbox.rollout_changed(session, row, before)
