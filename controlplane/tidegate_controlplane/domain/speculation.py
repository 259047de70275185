"""Which ways of guessing next tokens a plan can promise."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import DeploymentSpec, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.division import tensor_parallel
from tidegate_controlplane.domain.draft import FIELD

_INTO_THE_MODEL = frozenset({"early_exit", "medusa", "hydra"})
"""Methods that guess from what the model's own layers leave."""


def speculation_issue(spec: DeploymentSpec, facts: ModelFacts) -> SpecIssue | None:
    """Why a declared speculation is not honoured; None when it is, or when there is none."""
    asked = spec.runtime.speculation
    if asked is None:
        return None
    if asked.method == "draft" and spec.hardware.provisioner is ProvisionerName.AWS:
        return SpecIssue(
            FIELD,
            asked.draft_model,
            "a copy on AWS reads one model; use hardware.provisioner 'local' or 'ray', or "
            "runtime.speculation.method 'ngram'",
        )
    if asked.heads is not None and spec.hardware.provisioner is not ProvisionerName.LOCAL:
        return SpecIssue(
            "runtime.speculation.heads",
            asked.heads,
            "heads are read on the control plane's machine only; use hardware.provisioner 'local', "
            "or runtime.speculation.method 'ngram'",
        )
    devices = tensor_parallel(spec)
    if devices > 1 and asked.method == "draft":
        return SpecIssue(
            "runtime.speculation.method",
            asked.method,
            f"a draft model runs on one device, and the model is divided over {devices}; use "
            "'ngram', or divide it over one",
        )
    if devices > 1 and asked.method in _INTO_THE_MODEL:
        return SpecIssue(
            "runtime.speculation.method",
            asked.method,
            f"{asked.method!r} looks into the model, which is divided over {devices} devices; use "
            "'ngram', or divide it over one",
        )
    if asked.exit_layer is not None and asked.exit_layer >= facts.layers:
        return SpecIssue(
            "runtime.speculation.exit_layer",
            asked.exit_layer,
            f"{asked.exit_layer} is not before the last of the model's {facts.layers} layers; use "
            f"1 to {facts.layers - 1}",
        )
    return None
