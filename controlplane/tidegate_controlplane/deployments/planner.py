"""Inspect the model, then plan: the waiting around `domain.plan`."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.domain.plan import Capabilities, Refusal, fingerprint, resolve
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.inspect import inspect
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.deployments import facts_of_digest, median_cold_start_s


@dataclass(frozen=True)
class Planned:
    """A declaration that can be served, and what that takes."""

    spec: DeploymentSpec
    facts: ModelFacts
    model_revision: str | None
    plan: ResolvedPlan
    fingerprint: str


class Planner:
    def __init__(self, database: Database, capabilities: Capabilities) -> None:
        self._database = database
        self.capabilities = capabilities

    async def plan(self, spec: DeploymentSpec) -> Planned:
        """Raises Invalid with every issue when the model or the combination cannot be served."""
        found = await inspect(spec.model, self._known)
        digest = found.facts.digest
        cold_start_s = await self._database.read(lambda s: median_cold_start_s(s, digest))
        plan = resolved(spec, found.facts, self.capabilities, cold_start_s)
        return Planned(spec, found.facts, found.revision, plan, fingerprint(spec, digest))

    async def _known(self, digest: str) -> ModelFacts | None:
        return await self._database.read(lambda session: facts_of_digest(session, digest))


def resolved(
    spec: DeploymentSpec,
    facts: ModelFacts,
    capabilities: Capabilities,
    cold_start_s: float | None,
) -> ResolvedPlan:
    """The plan of `spec` for a model. Raises Invalid with every issue when there is none."""
    plan = resolve(spec, facts, capabilities, cold_start_s)
    if isinstance(plan, Refusal):
        sentences = "; ".join(f"{issue.field}: {issue.message}" for issue in plan.issues)
        raise Invalid(sentences, issues=plan.issues, param=plan.issues[0].field)
    return plan
