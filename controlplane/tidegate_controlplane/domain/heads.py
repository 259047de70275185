"""Heads that guess next tokens of a model: what they take, and whether the two fit."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.protocol.resources import ModelFacts, PlannedHeads, ResolvedPlan
from tidegate.spec import DeploymentSpec, SpecIssue

FIELD = "runtime.speculation.heads"


@dataclass(frozen=True)
class Heads:
    """Heads as they were found."""

    planned: PlannedHeads
    method: str
    exit_layer: int | None
    """After which they stand; None is the last."""
    hidden: int
    vocabulary: int
    model: str
    """The source that they were made for."""


def unlike_heads(spec: DeploymentSpec, facts: ModelFacts, heads: Heads) -> SpecIssue | None:
    """Why heads cannot guess for the model as they are asked to; None when they can.

    The digest of the model that they were made for is not compared (docs/decisions/124).
    """
    asked = spec.runtime.speculation
    assert asked is not None
    layer = heads.exit_layer if asked.exit_layer is None else asked.exit_layer
    hidden = facts.embedding_parameters // facts.vocabulary
    for what, own, wanted in (
        ("method", heads.method, asked.method),
        ("exit layer", heads.exit_layer, layer),
        # Facts that were kept before there was a count of the embedding do not say it.
        ("hidden size", heads.hidden, hidden or heads.hidden),
        ("vocabulary", heads.vocabulary, facts.vocabulary),
    ):
        if own != wanted:
            return _issue(
                spec,
                f"{asked.heads!r} were made for {heads.model!r} with the {what} {own}, and here it "
                f"is {wanted}; make heads for this model with tidegate distill",
            )
    if heads.exit_layer is not None and heads.exit_layer >= facts.layers:
        return _issue(
            spec,
            f"{asked.heads!r} were made for {heads.model!r} after layer {heads.exit_layer}, and "
            f"the model has {facts.layers}; make heads for this model with tidegate distill",
        )
    return None


def with_heads(plan: ResolvedPlan, heads: PlannedHeads | None) -> ResolvedPlan:
    """The plan with room for heads, which lie where the model does."""
    if heads is None:
        return plan
    taken = plan.memory_bytes + heads.weights_bytes
    return plan.model_copy(update={"heads": heads, "memory_bytes": taken})


def declared_heads(spec: DeploymentSpec) -> str | None:
    """The source of the heads; None where none are declared."""
    return spec.runtime.speculation.heads if spec.runtime.speculation else None


def _issue(spec: DeploymentSpec, message: str) -> SpecIssue:
    return SpecIssue(FIELD, declared_heads(spec), message)
