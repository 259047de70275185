"""In which precision a model is served."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import DeploymentSpec, Precision
from tidegate_controlplane.domain.capabilities import Capabilities

GROUP = 32
"""Packed weights are cut into groups of so many inputs."""


def chosen_precision(
    spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities
) -> Precision:
    """What was asked for; `auto` is the first that this platform has of what suits the model."""
    asked = spec.runtime.precision
    return suiting_precision(spec, facts, capabilities) if asked is Precision.AUTO else asked


def suiting_precision(
    spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities
) -> Precision:
    """The precision of a model that nothing was asked of."""
    if facts.precision is not None:
        return Precision(facts.precision)
    width = facts.embedding_parameters // facts.vocabulary
    if spec.model.task.encodes or width % GROUP:
        return Precision.BF16 if spec.model.task.encodes else Precision.FP32
    packed = [Precision.INT4] if facts.stored_bits == 4 else []
    suiting = [*packed, Precision.INT8, Precision.BF16]
    return next((one for one in suiting if one in capabilities.precisions), Precision.BF16)
