"""What can be done with deployments: plan, apply, scale, wake, delete, roll back.

Reading is done through `read`, and what concerns rollouts through `rollouts`.

Every change is one transaction that holds the change and its event. Nothing here touches a process:
the reconciler sees what is declared and makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap

from pydantic import ValidationError
from sqlmodel import Session

from tidegate.protocol.resources import (
    ChangeView,
    DeploymentPhase,
    DeploymentView,
    PlanView,
    RollbackRequest,
    ScaleRequest,
)
from tidegate.spec import DeploymentSpec, Mode, Task, diff, explain
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell
from tidegate_controlplane.deployments.declare import declare
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.reading import Reader
from tidegate_controlplane.deployments.rollouts import Rollouts
from tidegate_controlplane.deployments.rules import (
    Precondition,
    check_unchangeable,
    etag,
    must_live,
    must_stay,
)
from tidegate_controlplane.deployments.takeover import check_room, give_way
from tidegate_controlplane.domain.plan import warnings
from tidegate_controlplane.errors import Invalid, NotFound, PreconditionFailed
from tidegate_controlplane.gateway.catalog import Adapter, Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.planes import DEPLOYMENTS, raising
from tidegate_controlplane.store.tables import Deployment, Revision


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
        """Rings for a deployment's id when an event may have been written."""
        self.read = Reader(database, endpoints, provisioner, self.bell, clock)
        self.rollouts = Rollouts(database, planner.capabilities, endpoints, self.bell, clock)

    async def load_catalog(self) -> None:
        """Make the catalog what the database says: at a start, and when others changed that."""
        while True:
            before = self._catalog.changes
            found = await self._database.read(rows.all_living)
            if self._catalog.changes == before:
                break
        self._catalog.replace(served(r) for r in found if r.phase != DeploymentPhase.DELETING)

    async def plan(self, project_id: str, spec: DeploymentSpec) -> PlanView:
        """What applying `spec` would change and run. Touches nothing."""
        before = await self._database.read(lambda s: rows.living(s, project_id, spec.name))
        check_unchangeable(before, spec)
        wanted = await self._wanted_revision(before) if before else None
        planned = (await self._planner.plan(spec)).beside(wanted)
        changes = diff(DeploymentSpec.model_validate(before.spec) if before else None, spec)
        new_revision = wanted is None or wanted.fingerprint != planned.fingerprint
        memory_bytes = self._planner.capabilities.memory_bytes
        await self._database.read(
            lambda s: check_room(
                s, before, planned.plan, spec.rollout, memory_bytes, same_run=not new_revision
            )
        )
        shortage = await self._provisioner.shortage(planned.plan)
        short = [f"hardware.provisioner: {shortage}"] if shortage else []
        return PlanView(
            name=spec.name,
            action="create" if before is None else "update" if changes or new_revision else "none",
            changes=[ChangeView(field=c.field, before=c.before, after=c.after) for c in changes],
            new_revision=new_revision,
            model=planned.facts,
            plan=planned.plan,
            offers=planned.offers,
            warnings=[
                *warnings(planned.plan, planned.facts, self._planner.capabilities),
                *planned.left_out,
                *short,
            ],
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
        precondition = Precondition(if_match, only_new)
        before = await self._database.read(lambda s: rows.living(s, project_id, spec.name))
        precondition.check(before, spec.name)
        check_unchangeable(before, spec)
        planned = await self._planner.plan(spec)
        now, memory_bytes = self._clock.now(), self._planner.capabilities.memory_bytes
        row, created = await self._database.write(
            raising(
                DEPLOYMENTS,
                lambda s: declare(
                    s, project_id, planned, precondition, now, memory_bytes=memory_bytes
                ),
            )
        )
        self._catalog.put(served(row))
        self._notice(row)
        return await self.read.view(row), created

    async def scale(self, project_id: str, name: str, request: ScaleRequest) -> DeploymentView:
        """Change the replica bounds."""
        low, high = request.min_replicas, request.max_replicas
        return await self._amend(project_id, name, lambda spec: spec.with_replicas(low, high))

    async def add_adapter(
        self, project_id: str, name: str, adapter: str, source: str
    ) -> DeploymentView:
        """Serve an adapter under `name:adapter`, or the one of that name from another source."""
        return await self._amend(project_id, name, lambda spec: spec.with_adapter(adapter, source))

    async def remove_adapter(self, project_id: str, name: str, adapter: str) -> DeploymentView:
        """Serve an adapter no longer. Raises NotFound for one that is not there."""

        def without(spec: DeploymentSpec) -> DeploymentSpec:
            if adapter not in spec.runtime.adapters:
                known = ", ".join(sorted(spec.runtime.adapters)) or "none"
                raise NotFound(f"{name!r} has no adapter {adapter!r}; it has {known}")
            return spec.with_adapter(adapter, None)

        return await self._amend(project_id, name, without)

    async def _amend(
        self, project_id: str, name: str, change: Callable[[DeploymentSpec], DeploymentSpec]
    ) -> DeploymentView:
        """Apply what is declared now, changed."""
        while True:
            row = await self.read.living(project_id, name)
            try:
                spec = change(DeploymentSpec.model_validate(row.spec))
            except ValidationError as error:
                fault = explain(error, DeploymentSpec)
                raise Invalid(str(fault), issues=fault.issues) from error
            try:
                view, _ = await self.apply(project_id, spec, if_match=etag(row))
            except PreconditionFailed:
                continue  # declared anew meanwhile: change what is declared now
            return view

    async def rollback(
        self, project_id: str, name: str, request: RollbackRequest, *, if_match: str | None = None
    ) -> DeploymentView:
        """Make a former revision the declared one again."""
        row = await self.rollouts.roll_back(project_id, name, request, if_match=if_match)
        self._notice(row)
        return await self.read.view(row)

    async def wake(self, project_id: str, name: str) -> DeploymentView:
        """Bring it up as a request would, forgiving former failures, so that it is tried again."""
        now = self._clock.now()

        def forgive(session: Session) -> Deployment:
            row = must_live(session, project_id, name)
            must_stay(row)
            rows.try_again(session, row, now)
            rows.add_event(session, row, now, "WakeRequested", "asked to wake")
            return row

        row = await self._database.write(raising(DEPLOYMENTS, forgive))
        self._endpoints.touch(row.id)
        self._notice(row)
        return await self.read.view(row)

    async def delete(
        self, project_id: str, name: str, *, if_match: str | None = None
    ) -> DeploymentView:
        """Drain it away. Deleting what is being deleted changes nothing."""
        now = self._clock.now()

        def mark(session: Session) -> Deployment:
            row = must_live(session, project_id, name)
            Precondition(if_match).check(row, name)
            if row.phase != DeploymentPhase.DELETING:
                give_way(session, row, now, "Deleted", "the deployment is being deleted")
                rows.change_deployment(
                    session,
                    row,
                    now,
                    phase=DeploymentPhase.DELETING.value,
                    message="its replicas are draining",
                )
                rows.add_event(session, row, now, "DeleteRequested", "asked to delete")
            return row

        row = await self._database.write(raising(DEPLOYMENTS, mark))
        self._catalog.remove(project_id, name)
        self._notice(row)
        return await self.read.view(row)

    async def _wanted_revision(self, row: Deployment) -> Revision | None:
        return await self._database.read(lambda session: session.get(Revision, row.revision_id))

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
        adapters=tuple(starmap(Adapter, sorted(row.spec["runtime"]["adapters"].items()))),
    )
