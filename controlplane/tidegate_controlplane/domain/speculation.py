"""Which ways of guessing next tokens a plan can promise."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import DeploymentSpec, ProvisionerName, SourceKind, SpecIssue, parse_source
from tidegate_controlplane.domain.division import tensor_parallel
from tidegate_controlplane.domain.draft import FIELD as DRAFT
from tidegate_controlplane.domain.heads import FIELD as HEADS


def speculation_issue(spec: DeploymentSpec, facts: ModelFacts) -> SpecIssue | None:
    """Why a declared speculation is not honoured; None when it is, or when there is none."""
    asked = spec.runtime.speculation
    if asked is None:
        return None
    if spec.hardware.provisioner is ProvisionerName.AWS:
        for field, source in ((DRAFT, asked.draft_model), (HEADS, asked.heads)):
            if source is not None and (issue := _not_brought(field, source)):
                return issue
    devices = tensor_parallel(spec)
    if devices > 1 and asked.method == "draft":
        return SpecIssue(
            "runtime.speculation.method",
            asked.method,
            f"a draft model runs on one device, and the model is divided over {devices}; use "
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


def _not_brought(field: str, source: str) -> SpecIssue | None:
    """Why SageMaker cannot bring a source to a copy, which itself calls nobody."""
    parsed = parse_source(source)
    place = "s3://BUCKET/PREFIX/"
    if parsed.kind is SourceKind.S3 and not parsed.is_gguf:
        return None
    if parsed.kind is SourceKind.S3:
        remedy = "name the prefix that it is in, with no other model under it"
    elif parsed.kind is SourceKind.HUB:
        remedy = (
            f"copy it to S3, `hf download {parsed.location} --local-dir DIRECTORY && "
            f"aws s3 sync DIRECTORY {place}`, and name that address"
        )
    else:
        remedy = f"copy it there, `aws s3 sync {source} {place}`, and name that address"
    return SpecIssue(field, source, f"{source!r} cannot be brought to a copy on AWS; {remedy}")
