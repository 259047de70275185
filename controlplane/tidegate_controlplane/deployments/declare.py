"""The unit of work of an apply: rows for a planned declaration, or none when nothing changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session

from tidegate.protocol.resources import DeploymentPhase
from tidegate.spec import DeploymentSpec, Task, diff
from tidegate_controlplane.deployments.planner import Planned
from tidegate_controlplane.deployments.rules import Precondition, check_unchangeable
from tidegate_controlplane.deployments.takeover import check_room, take_over, was_rolled_back
from tidegate_controlplane.domain.draft import declared_source
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Deployment, Revision


def declare(
    session: Session,
    project_id: str,
    planned: Planned,
    precondition: Precondition,
    now: datetime,
    *,
    memory_bytes: int,
) -> tuple[Deployment, bool]:
    """The row that says what `planned` says; the second value says whether it is new.

    Raises PreconditionFailed or Conflict: what held before the model was read may hold no more;
    Invalid when this machine's `memory_bytes` can never have room for it.
    """
    row = rows.living(session, project_id, planned.spec.name)
    precondition.check(row, planned.spec.name)
    check_unchangeable(row, planned.spec)
    if row is None:
        check_room(session, None, planned.plan, planned.spec.rollout, memory_bytes, same_run=False)
        return _insert(session, project_id, planned, now), True
    _update(session, row, planned, now, memory_bytes)
    return row, False


def _insert(session: Session, project_id: str, planned: Planned, now: datetime) -> Deployment:
    spec = planned.spec
    row = Deployment(
        id=new_id("dep"),
        project_id=project_id,
        name=spec.name,
        mode=spec.mode.value,
        spec=spec.model_dump(mode="json"),
        plan=planned.plan.model_dump(mode="json"),
        revision_id="",
        phase=DeploymentPhase.PENDING.value,
        message="declared; the first step is due",
        conditions=[],
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    row.revision_id = _add_revision(session, row, planned, row.generation, now).id
    session.flush()
    rows.add_event(session, row, now, "Declared", f"declared as {spec.mode.value}")
    return row


def _update(
    session: Session, row: Deployment, planned: Planned, now: datetime, memory_bytes: int
) -> None:
    """A new generation when the declaration changed; a rollout when its replicas must.

    Declaring a failed deployment again, or one whose new revision was rolled back, is asking for
    another try.
    """
    wanted = session.get_one(Revision, row.revision_id)
    same_run = wanted.fingerprint == planned.fingerprint
    planned = planned.beside(wanted)
    changes = diff(DeploymentSpec.model_validate(row.spec), planned.spec)
    if same_run and not changes:
        _try_again(session, row, wanted, planned, now)
        return
    options = planned.spec.rollout
    check_room(session, row, planned.plan, options, memory_bytes, same_run=same_run)
    if row.phase == DeploymentPhase.FAILED:
        rows.try_again(session, row, now)
    generation, values = row.generation + 1, dict[str, Any]()
    what = ", ".join(change.field for change in changes) or "the files of the model"
    rows.add_event(session, row, now, "Declared", f"generation {generation} changes {what}")
    if not same_run:
        revision = _fitting_revision(session, row, planned, generation, now)
        values = take_over(session, row, revision, options, now)
    rows.change_deployment(
        session,
        row,
        now,
        spec=planned.spec.model_dump(mode="json"),
        plan=planned.plan.model_dump(mode="json"),
        generation=generation,
        **values,
    )


def _try_again(
    session: Session, row: Deployment, wanted: Revision, planned: Planned, now: datetime
) -> None:
    given_up, failed = was_rolled_back(session, row), row.phase == DeploymentPhase.FAILED
    if given_up or failed:
        rows.add_event(session, row, now, "RetryRequested", "declared again: trying again")
    if failed:
        rows.try_again(session, row, now)
    if given_up:
        values = take_over(session, row, wanted, planned.spec.rollout, now)
        rows.change_deployment(session, row, now, **values)


def _fitting_revision(
    session: Session, row: Deployment, planned: Planned, generation: int, now: datetime
) -> Revision:
    """The one that serves, when that is what is declared again; otherwise a new one."""
    if row.serving_revision_id:
        serving = session.get_one(Revision, row.serving_revision_id)
        if serving.fingerprint == planned.fingerprint:
            return serving
    return _add_revision(session, row, planned, generation, now)


def _add_revision(
    session: Session, row: Deployment, planned: Planned, generation: int, now: datetime
) -> Revision:
    spec = planned.spec
    version = rows.model_version(
        session,
        row.project_id,
        spec.model.source,
        spec.model.task.value,
        planned.facts,
        planned.model_revision,
        now,
    )
    if planned.draft is not None:
        source, task = declared_source(spec) or "", Task.GENERATE.value
        found = planned.draft
        rows.model_version(session, row.project_id, source, task, found.facts, found.revision, now)
    revision = Revision(
        id=new_id("rev"),
        deployment_id=row.id,
        number=rows.next_revision_number(session, row.id),
        generation=generation,
        fingerprint=planned.fingerprint,
        model_version_id=version.id,
        spec=spec.model_dump(mode="json"),
        plan=planned.plan.model_dump(mode="json"),
        created_at=now,
    )
    session.add(revision)
    session.flush()
    return revision
