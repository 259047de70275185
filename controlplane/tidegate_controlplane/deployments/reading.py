"""Deployments and what belongs to them, as their readers see them."""

from __future__ import annotations

from sqlmodel import Session

from tidegate.protocol.resources import (
    DecisionView,
    DeploymentView,
    EventView,
    LogLine,
    LogPage,
    ModelView,
    Page,
    ReplicaView,
    RevisionView,
)
from tidegate.spec import Mode
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell, heard
from tidegate_controlplane.deployments.cursors import (
    event_cursor,
    page,
    read_log_cursor,
    write_log_cursor,
)
from tidegate_controlplane.deployments.rules import must_live
from tidegate_controlplane.deployments.views import (
    decision_view,
    deployment_view,
    event_view,
    model_view,
    replica_view,
    revision_view,
)
from tidegate_controlplane.errors import NotFound
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.decisions import decisions_page
from tidegate_controlplane.store.tables import Deployment, Model, Replica

LOGGED_REPLICAS = 20
"""Logs are read of the newest replicas, at most this many."""


class Reader:
    """Every list is a page after a cursor; a name that does not live raises NotFound."""

    def __init__(
        self,
        database: Database,
        endpoints: Endpoints,
        provisioner: Provisioner,
        bell: Bell,
        clock: Clock,
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._provisioner = provisioner
        self._bell = bell
        self._clock = clock

    async def living(self, project_id: str, name: str) -> Deployment:
        """The row itself, for the neighbours in this room."""
        return await self._database.read(lambda session: must_live(session, project_id, name))

    async def view(self, row: Deployment) -> DeploymentView:
        """A row with its replicas counted."""
        replicas = await self._database.read(lambda s: rows.recent_replicas(s, row.id))
        return deployment_view(row, replicas)

    async def get(self, project_id: str, name: str) -> DeploymentView:
        return await self.view(await self.living(project_id, name))

    async def page(
        self,
        project_id: str,
        after: str | None,
        limit: int,
        mode: Mode | None = None,
        label: tuple[str, str] | None = None,
    ) -> Page[DeploymentView]:
        """Oldest first; with `label`, those whose label has that value."""

        def read(session: Session) -> list[tuple[Deployment, list[Replica]]]:
            found = _matching(session, project_id, after, limit + 1, mode, label)
            return [(row, rows.recent_replicas(session, row.id)) for row in found]

        found = await self._database.read(read)
        views = [deployment_view(row, replicas) for row, replicas in found]
        return page(views, limit, lambda view: view.id)

    async def revisions(
        self, project_id: str, name: str, after: str | None, limit: int
    ) -> Page[RevisionView]:
        row = await self.living(project_id, name)
        found = await self._database.read(
            lambda s: rows.revisions_page(s, row.id, after, limit + 1)
        )
        return page([revision_view(revision) for revision in found], limit, lambda view: view.id)

    async def replicas(
        self, project_id: str, name: str, after: str | None, limit: int
    ) -> Page[ReplicaView]:
        row = await self.living(project_id, name)
        found = await self._database.read(lambda s: rows.replicas_page(s, row.id, after, limit + 1))
        views = [replica_view(r, self._endpoints.in_flight_on(row.id, r.id)) for r in found]
        return page(views, limit, lambda view: view.id)

    async def events(
        self, project_id: str, name: str, after: str | None, limit: int, wait_s: float = 0.0
    ) -> Page[EventView]:
        """Oldest first, always with a cursor to go on from; waits while there is none yet."""
        row = await self.living(project_id, name)
        seq = event_cursor(after)
        deadline = self._clock.monotonic() + wait_s
        while True:
            bell = self._bell.listen(row.id)
            found = await self._database.read(lambda s: rows.events_page(s, row.id, seq, limit + 1))
            remaining_s = deadline - self._clock.monotonic()
            if found or remaining_s <= 0 or not await heard(bell, remaining_s):
                break
        views = [event_view(event) for event in found[:limit]]
        cursor = views[-1].id if views else str(seq)
        return Page(data=views, has_more=len(found) > limit, next=cursor)

    async def decisions(
        self, project_id: str, name: str, after: str | None, limit: int
    ) -> Page[DecisionView]:
        """Of the autoscaler, oldest first."""
        row = await self.living(project_id, name)
        seq = event_cursor(after)
        found = await self._database.read(lambda s: decisions_page(s, row.id, seq, limit + 1))
        return page([decision_view(each) for each in found], limit, lambda view: view.id)

    async def logs(self, project_id: str, name: str, cursor: str | None, limit: int) -> LogPage:
        """Lines of the newest replicas, oldest replica first; the cursor keeps each offset."""
        row = await self.living(project_id, name)
        known = read_log_cursor(cursor)
        found = await self._database.read(lambda s: rows.recent_replicas(s, row.id))
        newest = [replica.id for replica in found[-LOGGED_REPLICAS:]]
        offsets = {replica_id: known.get(replica_id, 0) for replica_id in newest}
        lines: list[LogLine] = []
        for replica_id in newest:
            if len(lines) >= limit:
                break
            read = await self._provisioner.logs(replica_id, offsets[replica_id], limit - len(lines))
            if read:
                offsets[replica_id] = read[-1].offset
                lines += read
        return LogPage(data=lines, cursor=write_log_cursor(offsets))

    async def models(self, project_id: str, after: str | None, limit: int) -> Page[ModelView]:
        found = await self._database.read(
            lambda s: rows.models_page(s, project_id, after, limit + 1)
        )
        views = [model_view(model, versions) for model, versions in found]
        return page(views, limit, lambda view: view.id)

    async def model(self, project_id: str, model_id: str) -> ModelView:
        def read(session: Session) -> ModelView:
            model = session.get(Model, model_id)
            if model is None or model.project_id != project_id:
                raise NotFound(f"there is no model {model_id!r}")
            return model_view(model, rows.versions_of(session, model.id))

        return await self._database.read(read)


def _matching(
    session: Session,
    project_id: str,
    after: str | None,
    number: int,
    mode: Mode | None,
    label: tuple[str, str] | None,
) -> list[Deployment]:
    """At most `number` rows. Labels lie inside the spec: more is read until enough is found."""
    found: list[Deployment] = []
    while len(found) < number:
        chunk = rows.page_of_living(
            session, project_id, after, number, mode.value if mode else None
        )
        found += [r for r in chunk if label is None or r.spec["labels"].get(label[0]) == label[1]]
        if len(chunk) < number:
            break
        after = chunk[-1].id
    return found[:number]
