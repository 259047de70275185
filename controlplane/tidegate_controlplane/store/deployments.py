"""Rows of deployments, revisions, replicas, models and events.

Each function is part of a unit of work: it takes a Session and waits for nothing but the database.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import event, update
from sqlmodel import Session, col, func, select

from tidegate.protocol.resources import DeploymentPhase, ModelFacts, ReplicaPhase, Severity
from tidegate_controlplane.domain.states import DEPLOYMENT, REPLICA, check_transition
from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.swap import swapped
from tidegate_controlplane.store.tables import (
    Deployment,
    Event,
    Model,
    ModelVersion,
    Replica,
    Revision,
)

FINAL_REPLICA = (ReplicaPhase.TERMINATED.value, ReplicaPhase.FAILED.value)


class StaleRow(Exception):
    """Another writer changed the row since it was read; read it again."""


def living(session: Session, project_id: str, name: str) -> Deployment | None:
    return session.exec(
        select(Deployment).where(
            Deployment.project_id == project_id,
            Deployment.name == name,
            col(Deployment.deleted_at).is_(None),
        )
    ).first()


def all_living(session: Session) -> Sequence[Deployment]:
    return session.exec(select(Deployment).where(col(Deployment.deleted_at).is_(None))).all()


def page_of_living(
    session: Session, project_id: str, after: str | None, limit: int, mode: str | None
) -> Sequence[Deployment]:
    """At most `limit` rows after the id `after`, oldest first."""
    query = select(Deployment).where(
        Deployment.project_id == project_id, col(Deployment.deleted_at).is_(None)
    )
    if after:
        query = query.where(Deployment.id > after)
    if mode:
        query = query.where(Deployment.mode == mode)
    return session.exec(query.order_by(Deployment.id).limit(limit)).all()


def change_deployment(session: Session, row: Deployment, now: datetime, **values: Any) -> None:
    """Compare-and-swap on the version; raises StaleRow, or ImpossibleTransition for a phase.

    `row` itself takes the new values, so that it can be shown to the caller.
    """
    if "phase" in values:
        check_transition(DEPLOYMENT, DeploymentPhase(row.phase), DeploymentPhase(values["phase"]))
    before = row.phase
    swap(session, Deployment, row, {**values, "updated_at": now})
    outbox.deployment_changed(session, row, before)


def try_again(session: Session, row: Deployment, now: datetime) -> None:
    """Forgive failures before now; a failed deployment is not failed while it is tried."""
    phase: dict[str, str] = {}
    if row.phase == DeploymentPhase.FAILED:
        phase = {"phase": DeploymentPhase.PROVISIONING.value, "message": "trying again"}
    change_deployment(session, row, now, forgiven_at=now, **phase)


def change_replica(session: Session, row: Replica, now: datetime, **values: Any) -> None:
    """Compare-and-swap on the version; raises StaleRow, or ImpossibleTransition for a phase."""
    if "phase" in values:
        check_transition(REPLICA, ReplicaPhase(row.phase), ReplicaPhase(values["phase"]))
    swap(session, Replica, row, {**values, "updated_at": now})


def model_version(
    session: Session,
    project_id: str,
    source: str,
    task: str,
    facts: ModelFacts,
    revision: str | None,
    now: datetime,
) -> ModelVersion:
    """The version with this digest, inserted (with its model) when it is new."""
    model = session.exec(
        select(Model).where(
            Model.project_id == project_id, Model.source == source, Model.task == task
        )
    ).first()
    if model is None:
        model = Model(
            id=new_id("mdl"), project_id=project_id, source=source, task=task, created_at=now
        )
        session.add(model)
        session.flush()
    version = session.exec(
        select(ModelVersion).where(
            ModelVersion.model_id == model.id, ModelVersion.digest == facts.digest
        )
    ).first()
    if version is None:
        version = ModelVersion(
            id=new_id("ver"),
            model_id=model.id,
            digest=facts.digest,
            revision=revision,
            facts=facts.model_dump(mode="json"),
            created_at=now,
        )
        session.add(version)
        session.flush()
    return version


def facts_of_digest(session: Session, digest: str) -> ModelFacts | None:
    found = session.exec(select(ModelVersion).where(ModelVersion.digest == digest)).first()
    return ModelFacts.model_validate(found.facts) if found else None


def models_page(
    session: Session, project_id: str, after: str | None, limit: int
) -> list[tuple[Model, Sequence[ModelVersion]]]:
    query = select(Model).where(Model.project_id == project_id)
    if after:
        query = query.where(Model.id > after)
    found = session.exec(query.order_by(Model.id).limit(limit)).all()
    return [(model, versions_of(session, model.id)) for model in found]


def versions_of(session: Session, model_id: str) -> Sequence[ModelVersion]:
    return session.exec(
        select(ModelVersion).where(ModelVersion.model_id == model_id).order_by(ModelVersion.id)
    ).all()


def median_cold_start_s(
    session: Session, digest: str, draft_digest: str | None = None
) -> float | None:
    """Over the last twenty cold starts of the same model files, in any deployment.

    One that reads a draft model too takes longer, and counts for that pair alone.
    """
    of_draft = col(Revision.plan)["draft"]["digest"].as_string()
    seconds = session.exec(
        select(Replica.cold_start_s)
        .join(Revision, col(Revision.id) == Replica.revision_id)
        .join(ModelVersion, col(ModelVersion.id) == Revision.model_version_id)
        .where(ModelVersion.digest == digest, col(Replica.cold_start_s).is_not(None))
        .where(of_draft.is_(None) if draft_digest is None else of_draft == draft_digest)
        .order_by(col(Replica.id).desc())
        .limit(20)
    ).all()
    known = sorted(value for value in seconds if value is not None)
    return known[len(known) // 2] if known else None


def next_revision_number(session: Session, deployment_id: str) -> int:
    highest = session.exec(
        select(func.max(Revision.number)).where(Revision.deployment_id == deployment_id)
    ).one()
    return (highest or 0) + 1


def revisions_page(
    session: Session, deployment_id: str, after: str | None, limit: int
) -> Sequence[Revision]:
    query = select(Revision).where(Revision.deployment_id == deployment_id)
    if after:
        query = query.where(Revision.id > after)
    return session.exec(query.order_by(Revision.id).limit(limit)).all()


def replicas_page(
    session: Session, deployment_id: str, after: str | None, limit: int
) -> Sequence[Replica]:
    query = select(Replica).where(Replica.deployment_id == deployment_id)
    if after:
        query = query.where(Replica.id > after)
    return session.exec(query.order_by(Replica.id).limit(limit)).all()


def recent_replicas(session: Session, deployment_id: str, limit: int = 50) -> list[Replica]:
    """The newest, oldest first, and every one that is not final."""
    query = select(Replica).where(Replica.deployment_id == deployment_id)
    newest = session.exec(query.order_by(col(Replica.id).desc()).limit(limit)).all()
    unfinished = session.exec(query.where(col(Replica.phase).not_in(FINAL_REPLICA))).all()
    return sorted({row.id: row for row in (*newest, *unfinished)}.values(), key=lambda r: r.id)


def unfinished_replicas(session: Session) -> Sequence[Replica]:
    return session.exec(select(Replica).where(col(Replica.phase).not_in(FINAL_REPLICA))).all()


def add_event(
    session: Session,
    deployment: Deployment,
    now: datetime,
    reason: str,
    message: str,
    *,
    severity: Severity = Severity.INFO,
    replica_id: str | None = None,
) -> None:
    """Say what happened, in the transaction in which it happens."""
    subject = f"replica/{replica_id}" if replica_id else f"deployment/{deployment.name}"
    session.add(
        Event(
            project_id=deployment.project_id,
            deployment_id=deployment.id,
            object=subject,
            severity=severity.value,
            reason=reason,
            message=message,
            time=now,
        )
    )


def revision_numbered(session: Session, deployment_id: str, number: int) -> Revision | None:
    return session.exec(
        select(Revision).where(Revision.deployment_id == deployment_id, Revision.number == number)
    ).first()


def revisions_of(session: Session, ids: Collection[str]) -> dict[str, Revision]:
    found = session.exec(select(Revision).where(col(Revision.id).in_(ids))).all()
    return {revision.id: revision for revision in found}


def events_page(session: Session, deployment_id: str, after: int, limit: int) -> Sequence[Event]:
    return session.exec(
        select(Event)
        .where(Event.deployment_id == deployment_id, col(Event.seq) > after)
        .order_by(col(Event.seq))
        .limit(limit)
    ).all()


def swap(session: Session, table: type[Any], row: Any, values: dict[str, Any]) -> None:
    """Compare-and-swap on the version; raises StaleRow. `row` itself takes the new values.

    It takes the old ones back when the unit of work is rolled back, and perhaps run again.
    """
    change = (
        update(table)
        .where(table.id == row.id, table.version == row.version)
        .values(**values, version=row.version + 1)
    )
    if not swapped(session, change):
        raise StaleRow(f"{table.__name__} {row.id} is no longer at version {row.version}")
    if row in session:
        session.expunge(row)
    after = {**values, "version": row.version + 1}
    before = {name: getattr(row, name) for name in after}

    def back(*_: object) -> None:
        _set(row, before)

    event.listen(session, "after_soft_rollback", back, insert=True)  # the last first
    _set(row, after)


def _set(row: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)
