"""What can be done with rollouts: look, promote, abort; and go back to a former revision."""

from __future__ import annotations

from typing import Literal

from sqlmodel import Session

from tidegate.protocol.resources import (
    ModelFacts,
    Page,
    ResolvedPlan,
    RollbackRequest,
    RolloutPhase,
    RolloutView,
)
from tidegate.spec import DeploymentSpec, RolloutSpec, SpecIssue, Strategy
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell
from tidegate_controlplane.deployments.cursors import page
from tidegate_controlplane.deployments.planner import resolved
from tidegate_controlplane.deployments.rules import Precondition, must_live, must_stay
from tidegate_controlplane.deployments.takeover import check_room, take_over, was_rolled_back
from tidegate_controlplane.deployments.views import rollout_view
from tidegate_controlplane.domain.adapters import beside
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.draft import Draft
from tidegate_controlplane.errors import Conflict, Invalid, NotFound
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store import rollouts as rollout_rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.planes import DEPLOYMENTS, raising
from tidegate_controlplane.store.tables import Deployment, ModelVersion, Revision, Rollout

FINISHED = (RolloutPhase.PROMOTED.value, RolloutPhase.ROLLED_BACK.value)
ENDS_AS = {"promote": RolloutPhase.PROMOTED, "abort": RolloutPhase.ROLLED_BACK}


class Rollouts:
    def __init__(
        self,
        database: Database,
        capabilities: Capabilities,
        endpoints: Endpoints,
        bell: Bell,
        clock: Clock,
    ) -> None:
        self._database = database
        self._capabilities = capabilities
        self._endpoints = endpoints
        self._bell = bell
        self._clock = clock

    async def newest(self, project_id: str, name: str) -> RolloutView:
        """The present or the last one of a deployment. Raises NotFound when there was none."""

        def read(session: Session) -> RolloutView:
            deployment = must_live(session, project_id, name)
            row = rollout_rows.newest_rollout(session, deployment.id)
            if row is None:
                raise NotFound(
                    f"deployment {name!r} had no rollout yet; its first revision serves, and a "
                    "changed declaration begins one"
                )
            return _view(session, row, deployment)

        return await self._database.read(read)

    async def page(
        self, project_id: str, deployment: str | None, after: str | None, limit: int
    ) -> Page[RolloutView]:
        """Oldest first."""

        def read(session: Session) -> list[RolloutView]:
            found = rollout_rows.rollouts_page(session, project_id, deployment, after, limit + 1)
            return [_view(session, row, deployed) for row, deployed in found]

        return page(await self._database.read(read), limit, lambda view: view.id)

    async def request(
        self, project_id: str, rollout_id: str, wanted: Literal["promote", "abort"]
    ) -> RolloutView:
        """Ask for its end; the next pass makes it so. Asking again changes nothing.

        Raises NotFound, and Conflict when it has ended otherwise.
        """
        now = self._clock.now()

        def note(session: Session) -> tuple[str, RolloutView]:
            row = rollout_rows.rollout_of(session, project_id, rollout_id)
            if row is None:
                raise NotFound(
                    f"there is no rollout {rollout_id!r}; GET /api/v1/rollouts lists those known"
                )
            deployment = session.get_one(Deployment, row.deployment_id)
            _check_can(row, wanted)
            if row.phase not in FINISHED and row.requested != wanted:
                rollout_rows.change_rollout(session, row, now, requested=wanted)
                reason = f"Rollout{wanted.capitalize()}Requested"
                rows.add_event(session, deployment, now, reason, f"asked to {wanted} the rollout")
            return deployment.id, _view(session, row, deployment)

        deployment_id, view = await self._database.write(raising(DEPLOYMENTS, note))
        self._endpoints.wanted.set()
        self._bell.ring(deployment_id)
        return view

    async def roll_back(
        self,
        project_id: str,
        name: str,
        request: RollbackRequest,
        *,
        if_match: str | None = None,
    ) -> Deployment:
        """Declare a former revision's model, runtime and hardware again, as a new generation.

        Scaling, objectives, rollout, labels and adapters stay: they belong to the present. The
        former revision takes over by rolling, whatever the declared strategy: who goes back does
        not want to wait. Raises NotFound, Conflict, Invalid, PreconditionFailed.
        """
        now = self._clock.now()

        def declare(session: Session) -> Deployment:
            row = must_live(session, project_id, name)
            Precondition(if_match).check(row, name)
            must_stay(row)
            target = _target(session, row, request.to)
            spec = _restored(row, target)
            loaded = ResolvedPlan.model_validate(row.plan).adapters_bytes
            plan = beside(self._planned(session, spec, target), loaded)
            options = RolloutSpec(
                strategy=Strategy.ROLLING, drain_timeout_s=spec.rollout.drain_timeout_s
            )
            check_room(session, row, plan, options, self._capabilities.memory_bytes, same_run=False)
            generation = row.generation + 1
            rows.add_event(
                session,
                row,
                now,
                "RollbackRequested",
                f"generation {generation} declares revision {target.number} again",
            )
            rows.change_deployment(
                session,
                row,
                now,
                spec=spec.model_dump(mode="json"),
                plan=plan.model_dump(mode="json"),
                generation=generation,
                **take_over(session, row, target, options, now),
            )
            return row

        return await self._database.write(raising(DEPLOYMENTS, declare))

    def _planned(self, session: Session, spec: DeploymentSpec, revision: Revision) -> ResolvedPlan:
        """The plan of `spec` for the very files that the revision served; without adapters."""
        version = session.get_one(ModelVersion, revision.model_version_id)
        facts = ModelFacts.model_validate(version.facts)
        draft = _draft_of(session, revision)
        of_draft = draft.facts.digest if draft else None
        cold_start_s = rows.median_cold_start_s(session, version.digest, of_draft)
        heads = ResolvedPlan.model_validate(revision.plan).heads
        return resolved(spec, facts, self._capabilities, cold_start_s, draft=draft, heads=heads)


def _draft_of(session: Session, revision: Revision) -> Draft | None:
    """The draft model that the revision was planned with."""
    planned = ResolvedPlan.model_validate(revision.plan).draft
    facts = rows.facts_of_digest(session, planned.digest) if planned else None
    return Draft(facts, planned.revision) if planned and facts else None


def _view(session: Session, row: Rollout, deployment: Deployment) -> RolloutView:
    return rollout_view(
        row, deployment, rows.revisions_of(session, [row.from_revision_id, row.to_revision_id])
    )


def _check_can(row: Rollout, wanted: Literal["promote", "abort"]) -> None:
    going_back = row.phase == RolloutPhase.ROLLING_BACK and wanted == "promote"
    ended_otherwise = row.phase in FINISHED and row.phase != ENDS_AS[wanted]
    if going_back or ended_otherwise:
        remedy = "use rollback" if wanted == "abort" else "declare the revision again"
        phase = row.phase.replace("_", " ")
        raise Conflict(f"rollout {row.id} is {phase} and cannot {wanted} any more; {remedy}")


def _target(session: Session, row: Deployment, number: int | None) -> Revision:
    """The revision `number`; without, the one that served before the declared one."""
    serves = row.serving_revision_id or row.revision_id
    if number is not None:
        revision = rows.revision_numbered(session, row.id, number)
        if revision is None:
            raise Invalid(
                f"to: deployment {row.name!r} has no revision {number}; its list of revisions "
                "names those there are",
                issues=[SpecIssue("to", number, "there is no such revision")],
                param="to",
            )
    elif serves != row.revision_id:
        revision = session.get_one(Revision, serves)
    else:
        last = rollout_rows.newest_rollout(session, row.id, promoted_to=serves)
        if last is None:
            raise Conflict(f"deployment {row.name!r} has no former revision to go back to")
        revision = session.get_one(Revision, last.from_revision_id)
    if revision.id == row.revision_id and not was_rolled_back(session, row):
        raise Conflict(f"revision {revision.number} is the declared one already; name another")
    return revision


def _restored(row: Deployment, revision: Revision) -> DeploymentSpec:
    parts = {part: revision.spec[part] for part in ("model", "runtime", "hardware")}
    parts["runtime"] = {**parts["runtime"], "adapters": row.spec["runtime"]["adapters"]}
    return DeploymentSpec.model_validate({**row.spec, **parts})
