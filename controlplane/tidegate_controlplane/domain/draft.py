"""A draft model beside the model that it guesses for: what it takes, and whether the two fit."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.protocol.resources import ModelFacts, PlannedDraft, ResolvedPlan
from tidegate.spec import DeploymentSpec, Precision, SpecIssue
from tidegate_controlplane.domain.footprint import (
    caches_bytes,
    kv_bytes_per_token,
    weights_bytes,
)
from tidegate_controlplane.domain.size import size

FIELD = "runtime.speculation.draft_model"
HARDLY_SMALLER = 2
"""A draft model with more than a half of the model's bytes is warned of: Leviathan et al. 2023 find
the gain in what a guess costs beside a step."""


@dataclass(frozen=True)
class Draft:
    """A draft model as it was found."""

    facts: ModelFacts
    revision: str | None
    """The commit, for sources that have one."""


def unlike_tokens(spec: DeploymentSpec, facts: ModelFacts, draft: ModelFacts) -> SpecIssue | None:
    """Why the tokens of a draft model mean nothing to the model; None when they are its own."""
    for source, said in (
        (spec.model.source, facts),
        (declared_source(spec), draft),
    ):
        if said.tokens_digest is None:
            return _issue(
                spec,
                f"no tokenizer.json of {source!r} says its tokens, so those of the model and its "
                "draft model cannot be compared; save the tokenizer beside the weights, with "
                "AutoTokenizer.from_pretrained(...).save_pretrained(...)",
            )
    if facts.tokens_digest == draft.tokens_digest:
        return None
    return _issue(
        spec,
        f"{declared_source(spec)!r} has other tokens ({draft.vocabulary} of them) than the model "
        f"{spec.model.source!r} ({facts.vocabulary}), so no guess of it would mean anything; use a "
        "smaller model of the same family, or method 'ngram'",
    )


def unfit_draft(
    spec: DeploymentSpec, draft: Draft, precision: Precision, available: frozenset[Precision]
) -> SpecIssue | None:
    """Why a draft model cannot run where the replicas do."""
    if precision not in available:
        known = ", ".join(sorted(available))
        return _issue(
            spec,
            f"{declared_source(spec)!r} would be served in {precision.value}, which is not "
            f"available on this platform; use one in {known}",
        )
    if draft.facts.precision is not None and spec.hardware.provisioner.value != "local":
        return _issue(
            spec,
            f"{declared_source(spec)!r} is an artifact, and those are read on this machine only; "
            "use provisioner local, or the model that it was built from",
        )
    return None


def with_draft(
    plan: ResolvedPlan, facts: ModelFacts, draft: Draft | None, precision: Precision
) -> ResolvedPlan:
    """The plan with room for a draft model, whose KV cache holds as many tokens as the model's.

    `precision` is that of the draft model. Sequences longer than its context are not guessed for.
    """
    if draft is None:
        return plan
    token_bytes = kv_bytes_per_token(facts, Precision(plan.precision))
    of_use = plan.max_sequences * min(plan.context_tokens, draft.facts.context_tokens)
    tokens = min(-(-plan.kv_cache_bytes // token_bytes), of_use)
    planned = PlannedDraft(
        digest=draft.facts.digest,
        revision=draft.revision,
        precision=precision.value,
        weights_bytes=weights_bytes(draft.facts, precision),
        kv_cache_bytes=tokens * kv_bytes_per_token(draft.facts, precision),
    )
    taken = planned.weights_bytes + planned.kv_cache_bytes
    return plan.model_copy(update={"draft": planned, "memory_bytes": plan.memory_bytes + taken})


def with_kv_cache(plan: ResolvedPlan, kv_cache_bytes: int) -> ResolvedPlan:
    """The plan with another size of the model's KV cache, and the draft model's in proportion."""
    beside, draft = plan.memory_bytes - caches_bytes(plan), plan.draft
    if draft is not None:
        share = draft.kv_cache_bytes * kv_cache_bytes // plan.kv_cache_bytes
        draft = draft.model_copy(update={"kv_cache_bytes": share})
    changed = plan.model_copy(update={"draft": draft, "kv_cache_bytes": kv_cache_bytes})
    return changed.model_copy(update={"memory_bytes": beside + caches_bytes(changed)})


def draft_cost(plan: ResolvedPlan) -> str | None:
    """A warning where guessing takes about as long as answering."""
    draft = plan.draft
    if draft is None or draft.weights_bytes * HARDLY_SMALLER <= plan.weights_bytes:
        return None
    return (
        f"{FIELD}: its weights take {size(draft.weights_bytes)} and the model's "
        f"{size(plan.weights_bytes)}, so that guessing costs about as much as it saves; use a "
        "smaller one"
    )


def declared_source(spec: DeploymentSpec) -> str | None:
    """The source of the draft model; None where no method `draft` is declared."""
    return spec.runtime.speculation.draft_model if spec.runtime.speculation else None


def _issue(spec: DeploymentSpec, message: str) -> SpecIssue:
    return SpecIssue(FIELD, declared_source(spec), message)
