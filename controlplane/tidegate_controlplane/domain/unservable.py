"""What of a declaration cannot be served, whatever the room."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts
from tidegate.spec import DeploymentSpec, Precision, SpecIssue
from tidegate_controlplane.domain.capabilities import AWS, LOCAL, Capabilities, is_local
from tidegate_controlplane.domain.division import division_issue
from tidegate_controlplane.domain.footprint import kv_bytes_per_token
from tidegate_controlplane.domain.gpus import gpu_issue
from tidegate_controlplane.domain.precision import chosen_precision
from tidegate_controlplane.domain.schedule import schedule_issues
from tidegate_controlplane.domain.size import size
from tidegate_controlplane.domain.speculation import speculation_issue

ENCODER_PRECISIONS = frozenset({Precision.FP32, Precision.BF16})


def issues(spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities) -> list[SpecIssue]:
    """Every field that this platform does not honour, or that this model cannot have."""
    return [
        *_unsupported(spec, facts, capabilities),
        *_impossible(spec, facts, capabilities),
        *schedule_issues(spec.scaling.schedule),
    ]


def _unsupported(
    spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities
) -> list[SpecIssue]:
    """Fields that the language knows and this platform does not honour yet, each by name."""
    issues = []
    provisioner, runtime = spec.hardware.provisioner.value, spec.runtime
    if provisioner not in capabilities.provisioners:
        known = ", ".join(sorted(capabilities.provisioners))
        remedy = "" if provisioner == LOCAL else f"set `{provisioner}` in its settings, or "
        issues.append(
            SpecIssue(
                "hardware.provisioner",
                provisioner,
                f"{provisioner!r} is not available on this platform; {remedy}use {known}",
            )
        )
    available, where = capabilities.precisions, "on this platform"
    if spec.model.task.encodes:
        available, where = available & ENCODER_PRECISIONS, f"for model.task '{spec.model.task}'"
    if chosen_precision(spec, facts, capabilities) not in available:
        known = ", ".join(sorted(p.value for p in available))
        issues.append(
            SpecIssue(
                "runtime.precision",
                runtime.precision.value,
                f"{runtime.precision.value} is not available {where}; use {known}",
            )
        )
    for field, value in (
        ("runtime.adapters", runtime.adapters or None if provisioner == AWS else None),
        ("runtime.max_adapters", runtime.max_adapters if provisioner == AWS else None),
        ("slo.ttft_ms", spec.slo.ttft_ms),
        ("slo.itl_ms", spec.slo.itl_ms),
    ):
        if value is not None:
            shown = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            issues.append(SpecIssue(field, shown, "not honoured by this platform yet; remove it"))
    own = capabilities.gpu if is_local(spec) else None
    wrong = gpu_issue(spec, own, at_most=capabilities.gpus_per_replica)
    wrong = wrong or division_issue(spec, facts)
    return [*issues, *filter(None, (wrong, speculation_issue(spec, facts)))]


def _impossible(
    spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities
) -> list[SpecIssue]:
    issues = _unlike_artifact(spec, facts)
    asked = spec.runtime.context_tokens
    if asked is not None and asked > facts.context_tokens:
        issues.append(
            SpecIssue(
                "runtime.context_tokens",
                asked,
                f"{asked} is more than the model's own {facts.context_tokens}; use at most that",
            )
        )
    default = type(spec.runtime).model_fields["max_sequences"].default
    if spec.model.task.encodes and spec.runtime.max_sequences != default:
        issues.append(
            SpecIssue(
                "runtime.max_sequences",
                spec.runtime.max_sequences,
                f"model.task '{spec.model.task}' decodes no sequences; remove it",
            )
        )
    if spec.model.task.encodes and spec.runtime.kv_cache is not None:
        issues.append(
            SpecIssue(
                "runtime.kv_cache",
                int(spec.runtime.kv_cache),
                f"model.task '{spec.model.task}' keeps no KV cache; remove it",
            )
        )
    elif spec.runtime.kv_cache is not None:
        context = asked or facts.context_tokens
        least = context * kv_bytes_per_token(facts, chosen_precision(spec, facts, capabilities))
        if spec.runtime.kv_cache < least:
            issues.append(
                SpecIssue(
                    "runtime.kv_cache",
                    int(spec.runtime.kv_cache),
                    f"{size(int(spec.runtime.kv_cache))} cannot hold one sequence of {context} "
                    f"tokens ({size(least)}); raise it, or lower runtime.context_tokens",
                )
            )
    return issues


def _unlike_artifact(spec: DeploymentSpec, facts: ModelFacts) -> list[SpecIssue]:
    """What an artifact cannot be any more: in another precision, or on another machine."""
    if facts.precision is None:
        return []
    issues = []
    asked = spec.runtime.precision
    if asked not in (Precision.AUTO, facts.precision):
        issues.append(
            SpecIssue(
                "runtime.precision",
                asked.value,
                f"{asked.value} is not that of the artifact {spec.model.source!r}, which is in "
                f"{facts.precision}; remove it, or deploy the model that it was built from",
            )
        )
    if not is_local(spec):
        issues.append(
            SpecIssue(
                "model.source",
                spec.model.source,
                f"{spec.model.source!r} is an artifact, and those are served on this machine only; "
                f"use provisioner {LOCAL}, or deploy the model that it was built from",
            )
        )
    return issues
