"""Which ways of guessing next tokens a plan can promise."""

from __future__ import annotations

from tidegate.spec import DeploymentSpec, ProvisionerName, SpecIssue
from tidegate_controlplane.domain.division import tensor_parallel
from tidegate_controlplane.domain.draft import FIELD


def speculation_issue(spec: DeploymentSpec) -> SpecIssue | None:
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
    return None
