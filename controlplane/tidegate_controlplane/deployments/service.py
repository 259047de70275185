"""What can be done with deployments, and the rules of doing it.

Every change is one transaction that holds the change and its event. Nothing here touches a process:
the reconciler sees what is declared and makes it so.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError
from sqlmodel import Session

from tidegate.protocol.resources import (
    ChangeView,
    DeploymentPhase,
    DeploymentView,
    EventView,
    LogLine,
    LogPage,
    ModelView,
    Page,
    PlanView,
    ReplicaView,
    RevisionView,
    ScaleRequest,
)
from tidegate.spec import DeploymentSpec, Mode, SpecIssue, Task, diff, explain
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell, heard
from tidegate_controlplane.deployments.planner import Planned, Planner
from tidegate_controlplane.deployments.views import (
    deployment_view,
    event_view,
    model_view,
    replica_view,
    revision_view,
)
from tidegate_controlplane.domain.plan import warnings
from tidegate_controlplane.errors import (
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    PreconditionFailed,
)
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Deployment, Model, Replica, Revision

T = TypeVar("T")
LOGGED_REPLICAS = 20
"""Logs are read of the newest replicas, at most this many."""


class Deployments:
    def __init__(
        self,
        database: Database,
        planner: Planner,
        catalog: Catalog,
        endpoints: Endpoints,
        provisioner: Provisioner,
        clock: Clock,
    ) -> None:
        self._database = database
        self._planner = planner
        self._catalog = catalog
        self._endpoints = endpoints
        self._provisioner = provisioner
        self._clock = clock
        self.bell = Bell()

    async def load_catalog(self) -> None:
        """Fill the catalog from the database, once, before the first request."""
        for row in await self._database.read(rows.all_living):
            if row.phase != DeploymentPhase.DELETING:
                self._catalog.put(served(row))

    # --- declare ---

    async def plan(self, project_id: str, spec: DeploymentSpec) -> PlanView:
        """What applying `spec` would change and run. Touches nothing."""
        before = await self._database.read(lambda s: rows.living(s, project_id, spec.name))
        _check_unchangeable(before, spec)
        planned = await self._planner.plan(spec)
        wanted = await self._wanted_revision(before) if before else None
        former = DeploymentSpec.model_validate(before.spec) if before else None
        changes = diff(former, spec)
        new_revision = wanted is None or wanted.fingerprint != planned.fingerprint
        return PlanView(
            name=spec.name,
            action="create" if before is None else "update" if changes or new_revision else "none",
            changes=[ChangeView(field=c.field, before=c.before, after=c.after) for c in changes],
            new_revision=new_revision,
            model=planned.facts,
            plan=planned.plan,
            warnings=warnings(planned.plan, self._planner.capabilities),
        )

    async def apply(
        self,
        project_id: str,
        spec: DeploymentSpec,
        *,
        if_match: str | None = None,
        only_new: bool = False,
    ) -> tuple[DeploymentView, bool]:
        """Make `spec` what is declared; the second value says whether it is a new deployment.

        The same spec again changes nothing, unless the model's files have changed.
        """
        before = await self._database.read(lambda s: rows.living(s, project_id, spec.name))
        _check_preconditions(before, spec.name, if_match, only_new)
        _check_unchangeable(before, spec)
        planned = await self._planner.plan(spec)
        row, created = await self._database.write(
            lambda s: self._declare(s, project_id, planned, if_match, only_new)
        )
        self._catalog.put(served(row))
        self._notice(row)
        return await self._view(row), created

    async def scale(self, project_id: str, name: str, request: ScaleRequest) -> DeploymentView:
        """Change the replica bounds: an apply of the present spec with other bounds."""
        row = await self._living(project_id, name)
        spec = DeploymentSpec.model_validate(row.spec)
        try:
            scaled = spec.with_replicas(request.min_replicas, request.max_replicas)
        except ValidationError as error:
            fault = explain(error, DeploymentSpec)
            raise Invalid(str(fault), issues=fault.issues) from error
        view, _ = await self.apply(project_id, scaled)
        return view

    async def wake(self, project_id: str, name: str) -> DeploymentView:
        """Bring it up as a request would, forgiving former failures, so that it is tried again."""
        row = await self._living(project_id, name)
        if row.phase == DeploymentPhase.DELETING:
            raise Conflict(f"deployment {name!r} is being deleted")
        now = self._clock.now()

        def forgive(session: Session) -> Deployment:
            found = _must_live(session, project_id, name)
            rows.change_deployment(session, found, now, forgiven_at=now)
            rows.add_event(session, found, now, "WakeRequested", "asked to wake")
            return found

        row = await self._database.write(forgive)
        self._endpoints.touch(row.id)
        self._notice(row)
        return await self._view(row)

    async def delete(
        self, project_id: str, name: str, *, if_match: str | None = None
    ) -> DeploymentView:
        """Drain it away. Deleting what is being deleted changes nothing."""
        now = self._clock.now()

        def mark(session: Session) -> Deployment:
            row = _must_live(session, project_id, name)
            _check_preconditions(row, name, if_match, only_new=False)
            if row.phase != DeploymentPhase.DELETING:
                rows.change_deployment(
                    session,
                    row,
                    now,
                    phase=DeploymentPhase.DELETING.value,
                    message="its replicas are draining",
                )
                rows.add_event(session, row, now, "DeleteRequested", "asked to delete")
            return row

        row = await self._database.write(mark)
        self._catalog.remove(project_id, name)
        self._notice(row)
        return await self._view(row)

    # --- read ---

    async def get(self, project_id: str, name: str) -> DeploymentView:
        return await self._view(await self._living(project_id, name))

    async def page(
        self,
        project_id: str,
        after: str | None,
        limit: int,
        mode: Mode | None = None,
        label: tuple[str, str] | None = None,
    ) -> Page[DeploymentView]:
        """Oldest first; with `label`, those whose label has that value."""

        def read(session: Session) -> tuple[list[tuple[Deployment, list[Replica]]], str | None]:
            found, cursor = _matching(session, project_id, after, limit, mode, label)
            return [(row, rows.recent_replicas(session, row.id)) for row in found], cursor

        found, cursor = await self._database.read(read)
        data = [deployment_view(row, replicas) for row, replicas in found]
        return Page(data=data, has_more=cursor is not None, next=cursor)

    async def revisions(
        self, project_id: str, name: str, after: str | None, limit: int
    ) -> Page[RevisionView]:
        row = await self._living(project_id, name)
        found = await self._database.read(
            lambda s: rows.revisions_page(s, row.id, after, limit + 1)
        )
        return _page([revision_view(revision) for revision in found], limit, lambda v: v.id)

    async def replicas(
        self, project_id: str, name: str, after: str | None, limit: int
    ) -> Page[ReplicaView]:
        row = await self._living(project_id, name)
        found = await self._database.read(lambda s: rows.replicas_page(s, row.id, after, limit + 1))
        views = [replica_view(r, self._endpoints.in_flight_on(row.id, r.id)) for r in found]
        return _page(views, limit, lambda view: view.id)

    async def events(
        self, project_id: str, name: str, after: str | None, limit: int, wait_s: float = 0.0
    ) -> Page[EventView]:
        """Oldest first, always with a cursor to go on from; waits when there is none yet."""
        row = await self._living(project_id, name)
        seq = _event_cursor(after)
        bell = self.bell.listen(row.id)
        found = await self._database.read(lambda s: rows.events_page(s, row.id, seq, limit + 1))
        if not found and wait_s and await heard(bell, wait_s):
            found = await self._database.read(lambda s: rows.events_page(s, row.id, seq, limit + 1))
        views = [event_view(event) for event in found[:limit]]
        cursor = views[-1].id if views else str(seq)
        return Page(data=views, has_more=len(found) > limit, next=cursor)

    async def logs(self, project_id: str, name: str, cursor: str | None, limit: int) -> LogPage:
        """Lines of every recent replica, oldest replica first; the cursor remembers each offset."""
        row = await self._living(project_id, name)
        offsets = _log_cursor(cursor)
        replicas = await self._database.read(lambda s: rows.recent_replicas(s, row.id))
        lines: list[LogLine] = []
        for replica in replicas[-LOGGED_REPLICAS:]:
            offset = offsets.get(replica.id, 0)
            read = await self._provisioner.logs(replica.id, offset, limit - len(lines))
            offsets[replica.id] = read[-1].offset if read else offset
            lines += read
            if len(lines) >= limit:
                break
        known = {replica.id for replica in replicas}
        kept = {key: value for key, value in offsets.items() if key in known}
        return LogPage(data=lines, cursor=_encode_cursor(kept))

    async def models(self, project_id: str, after: str | None, limit: int) -> Page[ModelView]:
        found = await self._database.read(
            lambda s: rows.models_page(s, project_id, after, limit + 1)
        )
        views = [model_view(model, versions) for model, versions in found]
        return _page(views, limit, lambda view: view.id)

    async def model(self, project_id: str, model_id: str) -> ModelView:
        def read(session: Session) -> ModelView:
            model = session.get(Model, model_id)
            if model is None or model.project_id != project_id:
                raise NotFound(f"there is no model {model_id!r}")
            return model_view(model, rows.versions_of(session, model.id))

        return await self._database.read(read)

    # --- inside ---

    def _declare(
        self,
        session: Session,
        project_id: str,
        planned: Planned,
        if_match: str | None,
        only_new: bool,
    ) -> tuple[Deployment, bool]:
        spec, now = planned.spec, self._clock.now()
        row = rows.living(session, project_id, spec.name)
        _check_preconditions(row, spec.name, if_match, only_new)
        _check_unchangeable(row, spec)
        if row is None:
            return self._insert(session, project_id, planned, now), True
        wanted = session.get(Revision, row.revision_id)
        same_run = wanted is not None and wanted.fingerprint == planned.fingerprint
        if same_run and DeploymentSpec.model_validate(row.spec) == spec:
            return row, False
        generation = row.generation + 1
        revision_id = row.revision_id
        if not same_run:
            revision_id = self._add_revision(session, row, planned, generation, now).id
        changed = ", ".join(
            change.field for change in diff(DeploymentSpec.model_validate(row.spec), spec)
        )
        rows.change_deployment(
            session,
            row,
            now,
            spec=spec.model_dump(mode="json"),
            plan=planned.plan.model_dump(mode="json"),
            generation=generation,
            revision_id=revision_id,
        )
        message = f"generation {generation} changes {changed or 'the files of the model'}"
        rows.add_event(session, row, now, "Declared", message)
        return row, False

    def _insert(
        self, session: Session, project_id: str, planned: Planned, now: datetime
    ) -> Deployment:
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
        row.revision_id = self._add_revision(session, row, planned, 1, now).id
        session.flush()
        rows.add_event(session, row, now, "Declared", f"declared as {spec.mode.value}")
        return row

    def _add_revision(
        self,
        session: Session,
        row: Deployment,
        planned: Planned,
        generation: int,
        now: datetime,
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

    async def _living(self, project_id: str, name: str) -> Deployment:
        return await self._database.read(lambda session: _must_live(session, project_id, name))

    async def _wanted_revision(self, row: Deployment) -> Revision | None:
        return await self._database.read(lambda session: session.get(Revision, row.revision_id))

    async def _view(self, row: Deployment) -> DeploymentView:
        replicas = await self._database.read(lambda s: rows.recent_replicas(s, row.id))
        return deployment_view(row, replicas)

    def _notice(self, row: Deployment) -> None:
        """Tell the reconciler and those who wait for events; both would find out by themselves."""
        self._endpoints.wanted.set()
        self.bell.ring(row.id)


def served(row: Deployment) -> Served:
    """What the data plane needs of a row."""
    return Served(
        deployment_id=row.id,
        project_id=row.project_id,
        name=row.name,
        mode=Mode(row.mode),
        task=Task(row.spec["model"]["task"]),
        created_at=row.created_at,
    )


def etag(view: DeploymentView) -> str:
    """Changes with each changed declaration, and with nothing else."""
    return f'"{view.id}.{view.generation}"'


def _must_live(session: Session, project_id: str, name: str) -> Deployment:
    row = rows.living(session, project_id, name)
    if row is None:
        raise NotFound(f"there is no deployment {name!r}; `tidegate ls` shows those there are")
    return row


def _check_preconditions(
    row: Deployment | None, name: str, if_match: str | None, only_new: bool
) -> None:
    if only_new and row is not None:
        raise PreconditionFailed(f"the name {name!r} is taken; use another, or update it")
    if if_match is None or (if_match == "*" and row is not None):
        return
    present = f'"{row.id}.{row.generation}"' if row else "none"
    if if_match != present:
        raise PreconditionFailed(
            f"If-Match: {if_match} is not the present version ({present}); read it and try again"
        )


def _check_unchangeable(row: Deployment | None, spec: DeploymentSpec) -> None:
    if row is None:
        return
    if row.phase == DeploymentPhase.DELETING:
        raise Conflict(f"deployment {spec.name!r} is being deleted; try again when it is gone")
    former = DeploymentSpec.model_validate(row.spec)
    for field, before, after in (
        ("mode", former.mode, spec.mode),
        ("model.task", former.model.task, spec.model.task),
    ):
        if before is not after:
            raise Conflict(
                f"{field}: the deployment {spec.name!r} is {before.value!r} and cannot become "
                f"{after.value!r}; delete it first, or use another name",
                code="name_taken",
                param=field,
                issues=[SpecIssue(field, after.value, f"the deployment is {before.value!r}")],
            )


def _matching(
    session: Session,
    project_id: str,
    after: str | None,
    limit: int,
    mode: Mode | None,
    label: tuple[str, str] | None,
) -> tuple[list[Deployment], str | None]:
    """At most `limit` rows, and the cursor of the next page when there are more."""
    found: list[Deployment] = []
    while len(found) <= limit:
        chunk = rows.page_of_living(
            session, project_id, after, limit + 1, mode.value if mode else None
        )
        found += [r for r in chunk if label is None or r.spec["labels"].get(label[0]) == label[1]]
        if len(chunk) <= limit:
            break
        after = chunk[-1].id
    cursor = found[limit - 1].id if len(found) > limit else None
    return found[:limit], cursor


def _page(views: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """Of `limit + 1` views read, the first `limit`, and whether there are more."""
    data = list(views[:limit])
    more = len(views) > limit
    return Page(data=data, has_more=more, next=cursor(data[-1]) if more else None)


def _event_cursor(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"after: {text!r} is not a cursor of this list", param="after")
    return int(text)


def _log_cursor(text: str | None) -> dict[str, int]:
    if not text:
        return {}
    fault = BadRequest(f"cursor: {text[:80]!r} is not a cursor of this log", param="cursor")
    try:
        content = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, binascii.Error, RecursionError):
        raise fault from None
    if not isinstance(content, dict):
        raise fault
    if not all(isinstance(v, int) and 0 <= v < 2**62 for v in content.values()):
        raise fault
    return content


def _encode_cursor(offsets: dict[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(offsets).encode()).decode()
