"""Inspect the model, then plan: the waiting around `domain.plan`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from tidegate.protocol.resources import ConsideredOffer, ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, ModelSpec, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.adapters import Updates
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.draft import FIELD, Draft, declared_source, unlike_tokens
from tidegate_controlplane.domain.on_offer import Market, staying
from tidegate_controlplane.domain.plan import Refusal, alternatives, fingerprint, resolve
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.adapters import AdapterSizes, missing_adapters
from tidegate_controlplane.models.heads import missing_heads
from tidegate_controlplane.models.inspect import inspect
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.deployments import facts_of_digest, median_cold_start_s
from tidegate_controlplane.store.tables import Revision


@dataclass(frozen=True)
class Planned:
    """A declaration that can be served, and what that takes."""

    spec: DeploymentSpec
    facts: ModelFacts
    model_revision: str | None
    draft: Draft | None
    """The model that guesses for it, where one is declared."""
    plan: ResolvedPlan
    fingerprint: str
    offers: list[ConsideredOffer]
    """That the plan's was chosen among."""
    left_out: tuple[str, ...] = ()
    """What the plan does not reckon with, in words."""

    def beside(self, revision: Revision | None) -> Planned:
        """The same; on the machines of `revision`, the wanted one, when its replicas stay."""
        if revision is None or revision.fingerprint != self.fingerprint:
            return self
        runs = ResolvedPlan.model_validate(revision.plan)
        return replace(self, plan=staying(self.plan, runs))


class Planner:
    def __init__(
        self,
        database: Database,
        capabilities: Capabilities,
        market: Callable[[], Awaitable[Market]] | None = None,
    ) -> None:
        """`market` says what there is to rent at the moment, where anything can be rented."""
        self._database = database
        self._market = market
        self._sizes = AdapterSizes()
        self.capabilities = capabilities

    async def plan(self, spec: DeploymentSpec) -> Planned:
        """Raises Invalid with every issue when the model or the combination cannot be served."""
        if issues := await asyncio.to_thread(_missing, spec):
            raise _invalid(issues)
        drafted = declared_source(spec) is not None
        found = await inspect(spec.model, self._known_by_tokens if drafted else self._known)
        draft = await self._draft(spec, found.facts) if drafted else None
        digest, of_draft = found.facts.digest, draft.facts.digest if draft else None
        cold_start_s = await self._database.read(lambda s: median_cold_start_s(s, digest, of_draft))
        here = await self._capabilities_for(spec)
        sizes = await self._sizes.of(spec)
        plan = resolved(spec, found.facts, here, cold_start_s, draft=draft, adapters=sizes.known)
        offers = alternatives(spec, found.facts, plan, here)
        run = fingerprint(spec, digest, of_draft)
        left_out = tuple(sizes.warnings)
        return Planned(spec, found.facts, found.revision, draft, plan, run, offers, left_out)

    async def _draft(self, spec: DeploymentSpec, facts: ModelFacts) -> Draft:
        """The draft model of a declaration. Raises Invalid when it cannot guess for the model."""
        model = ModelSpec(source=declared_source(spec) or "")
        found = await inspect(model, self._known_by_tokens, field=FIELD)
        if issue := unlike_tokens(spec, facts, found.facts):
            raise _invalid((issue,))
        return Draft(found.facts, found.revision)

    async def _capabilities_for(self, spec: DeploymentSpec) -> Capabilities:
        if self._market is None or spec.hardware.provisioner is not ProvisionerName.AWS:
            return self.capabilities
        return replace(self.capabilities, market=await self._market())

    async def _known(self, digest: str) -> ModelFacts | None:
        return await self._database.read(lambda session: facts_of_digest(session, digest))

    async def _known_by_tokens(self, digest: str) -> ModelFacts | None:
        """Facts that were kept before there was a digest of tokens are of no use here."""
        known = await self._known(digest)
        return known if known and known.tokens_digest else None


def _missing(spec: DeploymentSpec) -> tuple[SpecIssue, ...]:
    """What the declaration names on this machine and is not there."""
    return (*missing_adapters(spec), *missing_heads(spec))


def resolved(
    spec: DeploymentSpec,
    facts: ModelFacts,
    capabilities: Capabilities,
    cold_start_s: float | None,
    *,
    draft: Draft | None = None,
    adapters: Iterable[Updates] = (),
) -> ResolvedPlan:
    """The plan of `spec` for a model. Raises Invalid with every issue when there is none."""
    plan = resolve(spec, facts, capabilities, cold_start_s, draft=draft, adapters=adapters)
    if isinstance(plan, Refusal):
        raise _invalid(plan.issues)
    return plan


def _invalid(issues: tuple[SpecIssue, ...]) -> Invalid:
    sentences = "; ".join(f"{issue.field}: {issue.message}" for issue in issues)
    return Invalid(sentences, issues=issues, param=issues[0].field)
