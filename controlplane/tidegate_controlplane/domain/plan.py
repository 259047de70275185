"""From a declaration and the facts of its model to a resolved plan, or to every reason why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tidegate.protocol.resources import ConsideredOffer, ModelFacts, ResolvedPlan
from tidegate.spec import (
    DeploymentSpec,
    Mode,
    Precision,
    ProvisionerName,
    SpecIssue,
)
from tidegate_controlplane.domain.adapters import Updates, loaded_bytes, remedy
from tidegate_controlplane.domain.division import (
    division_cost,
    division_issue,
    tensor_parallel,
)
from tidegate_controlplane.domain.draft import (
    Draft,
    declared_source,
    draft_cost,
    unfit_draft,
    with_draft,
    with_kv_cache,
)
from tidegate_controlplane.domain.footprint import (
    PROCESS_BYTES,
    host_bytes,
    kv_bytes_per_token,
    read_bytes,
    weights_bytes,
)
from tidegate_controlplane.domain.gpus import MachineGpu, gpu_issue, gpu_share, on_own_gpu
from tidegate_controlplane.domain.offload import (
    offload_cost,
    offload_remedy,
    with_automatic_offload,
    with_offload,
)
from tidegate_controlplane.domain.on_offer import Market, considered, largest_gpu_bytes, on_offer
from tidegate_controlplane.domain.schedule import schedule_issues
from tidegate_controlplane.domain.size import need, size
from tidegate_controlplane.domain.speculation import speculation_issue

LOCAL, AWS = ProvisionerName.LOCAL.value, ProvisionerName.AWS.value
"""Replicas on the control plane's machine: its memory and cores bound these alone."""
GROUP = 32
"""Packed weights are cut into groups of so many inputs."""
ENCODER_PRECISIONS = frozenset({Precision.FP32, Precision.BF16})
MAX_ADAPTERS = 8
KV_SHARE = 16
"""The default KV cache takes at most one sixteenth of the machine's memory."""
IDLE_TIMEOUT_S = {Mode.REALTIME: 300.0, Mode.SERVERLESS: 300.0, Mode.ASYNC: 60.0, Mode.BATCH: 15.0}

CLEAR_S = {Mode.REALTIME: 10.0, Mode.SERVERLESS: 10.0, Mode.ASYNC: 60.0, Mode.BATCH: 600.0}
"""Seconds that a backlog may last once replicas are ready: the less somebody waits for it, the
longer, and the fewer replicas it takes."""


@dataclass(frozen=True)
class Capabilities:
    """What this platform can do, so that a plan promises nothing else."""

    provisioners: frozenset[str]
    """The places that its settings configure."""
    precisions: frozenset[Precision]
    memory_bytes: int
    """Of the machine, or of the container around it."""
    cores: int
    gpu: MachineGpu | None = None
    """That of the machine; the first one of several."""
    gpus_per_replica: int = 16
    """What the runtime divides a model over."""
    market: Market | None = None
    """Where the provisioner `aws` rents machines."""


@dataclass(frozen=True)
class Refusal:
    """Why a declaration cannot be served here: every reason at once."""

    issues: tuple[SpecIssue, ...]


def resolve(
    spec: DeploymentSpec,
    facts: ModelFacts,
    capabilities: Capabilities,
    cold_start_s: float | None = None,
    *,
    draft: Draft | None = None,
    adapters: Iterable[Updates] = (),
) -> ResolvedPlan | Refusal:
    """Fill every default and predict the memory of one replica; refuse what cannot run.

    `draft` is the model that `spec` names for its speculation, ValueError when it is missing;
    `adapters` are those declared whose weights are known.
    """
    if (draft is None) is not (declared_source(spec) is None):
        raise ValueError(f"{spec.name!r} is planned without its draft model")
    drafting = _suiting(spec, draft.facts, capabilities) if draft else Precision.AUTO
    unfit = draft and unfit_draft(spec, draft, drafting, capabilities.precisions)
    issues = [
        *_unsupported(spec, facts, capabilities),
        *([unfit] if unfit else []),
        *_impossible(spec, facts, capabilities),
        *schedule_issues(spec.scaling.schedule),
    ]
    if issues:
        return Refusal(tuple(issues))
    precision = _precision(spec, facts, capabilities)
    context = spec.runtime.context_tokens or facts.context_tokens
    weights = weights_bytes(facts, precision)
    kv_cache = _kv_cache_bytes(spec, facts, context, precision, _shared_bytes(spec, capabilities))
    most_adapters = spec.runtime.max_adapters or MAX_ADAPTERS
    on_gpu = spec.hardware.gpu is not None
    loaded = loaded_bytes(adapters, most_adapters, precision, on_gpu=on_gpu)
    low, high = replica_bounds(spec)
    plan = ResolvedPlan(
        provisioner=spec.hardware.provisioner.value,
        precision=precision.value,
        context_tokens=context,
        max_sequences=spec.runtime.max_sequences,
        kv_cache_bytes=kv_cache,
        weights_bytes=weights,
        memory_bytes=weights
        + kv_cache
        + tensor_parallel(spec) * PROCESS_BYTES
        + _spilled_beside(spec)
        + loaded,
        adapters_bytes=loaded,
        max_adapters=most_adapters,
        threads=spec.hardware.cpu,
        gpu=spec.hardware.gpu,
        tensor_parallel=tensor_parallel(spec),
        speculation=spec.runtime.speculation,
        kv_spill=spec.runtime.kv_spill,
        tool_parser=spec.runtime.tool_parser,
        min_replicas=low,
        max_replicas=high,
        target_in_flight=spec.scaling.target_in_flight,
        idle_timeout_s=_idle_timeout_s(spec),
        cold_start_price_s=spec.scaling.cold_start_price_s,
        clear_s=CLEAR_S[spec.mode],
        schedule=spec.scaling.schedule,
        drain_timeout_s=spec.rollout.drain_timeout_s,
        cold_start_s=cold_start_s,
    )
    plan = with_draft(plan, facts, draft, drafting)
    room = _room_bytes(spec, plan, capabilities)
    held = with_offload(spec, facts, plan, room)
    if isinstance(held, SpecIssue):
        return Refusal((held,))
    placed = _placed(spec, facts, held, capabilities)
    if not isinstance(placed, SpecIssue):
        return placed
    streamed = with_automatic_offload(spec, facts, plan, room)
    if streamed is None or isinstance(_placed(spec, facts, streamed, capabilities), SpecIssue):
        return Refusal((placed,))
    message = f"{placed.message}; or {offload_remedy(streamed)}"
    return Refusal((replace(placed, message=message),))


def alternatives(
    spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan, capabilities: Capabilities
) -> list[ConsideredOffer]:
    """Every offer that a plan of `spec` was chosen among; none where nothing is rented."""
    if plan.offer is None or capabilities.market is None:
        return []
    precision = Precision(plan.precision)
    least = _kv_cache_bytes(spec, facts, plan.context_tokens, precision, 0)
    return considered(with_kv_cache(plan, least), capabilities.market)


def warnings(plan: ResolvedPlan, facts: ModelFacts, capabilities: Capabilities) -> list[str]:
    """What will work but may surprise."""
    found = [division_cost(plan, facts)] if plan.tensor_parallel > 1 else []
    if plan.offload is not None:
        found.append(offload_cost(plan.offload))
    if drafting := draft_cost(plan):
        found.append(drafting)
    if plan.provisioner != LOCAL:
        return found
    if plan.memory_bytes * plan.max_replicas > capabilities.memory_bytes:
        found.append(
            f"scaling.max_replicas: {plan.max_replicas} replicas of {size(plan.memory_bytes)} "
            f"need more than this machine's {size(capabilities.memory_bytes)}"
        )
    if plan.max_replicas > 1 and plan.threads is None:
        found.append(
            f"hardware.cpu: {plan.max_replicas} replicas will share all {capabilities.cores} "
            "cores; set it to give each its own"
        )
    if plan.threads is not None and plan.threads > capabilities.cores:
        found.append(
            f"hardware.cpu: {plan.threads} threads will take turns on this machine's "
            f"{capabilities.cores} cores; lower it"
        )
    if not plan.gpu and plan.tensor_parallel > (cores := plan.threads or capabilities.cores):
        found.append(
            f"runtime.tensor_parallel: {plan.tensor_parallel} processes will take turns on "
            f"{cores} cores; lower it"
        )
    return found


def replica_bounds(spec: DeploymentSpec) -> tuple[int, int]:
    """Fewest and most replicas, with the defaults of the mode."""
    low = spec.scaling.min_replicas
    if low is None:
        low = 1 if spec.mode is Mode.REALTIME else 0
    return low, spec.scaling.max_replicas or max(1, low)


def fingerprint(spec: DeploymentSpec, model_digest: str, draft_digest: str | None = None) -> str:
    """What decides whether running replicas still fit: the models' digests and how they are run.

    Scaling, objectives, rollout, labels and adapters change without new replicas.
    """
    run: dict[str, Any] = {
        "name": spec.name,
        "digest": model_digest,
        "model": spec.model.model_dump(mode="json"),
        "runtime": spec.runtime.model_dump(mode="json", exclude={"adapters"}),
        "hardware": spec.hardware.model_dump(mode="json"),
    }
    if draft_digest is not None:
        run["draft"] = draft_digest
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def _idle_timeout_s(spec: DeploymentSpec) -> float | None:
    """None where it is to be learned."""
    asked = spec.scaling.idle_timeout_s
    if asked == "auto":
        return None
    return IDLE_TIMEOUT_S[spec.mode] if asked is None else asked


def _precision(spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities) -> Precision:
    """What was asked for; `auto` is the first that this platform has of what suits the model."""
    asked = spec.runtime.precision
    return _suiting(spec, facts, capabilities) if asked is Precision.AUTO else asked


def _suiting(spec: DeploymentSpec, facts: ModelFacts, capabilities: Capabilities) -> Precision:
    """The precision of a model that nothing was asked of."""
    if facts.precision is not None:
        return Precision(facts.precision)
    width = facts.embedding_parameters // facts.vocabulary
    if spec.model.task.encodes or width % GROUP:
        return Precision.BF16 if spec.model.task.encodes else Precision.FP32
    packed = [Precision.INT4] if facts.stored_bits == 4 else []
    suiting = [*packed, Precision.INT8, Precision.BF16]
    return next((one for one in suiting if one in capabilities.precisions), Precision.BF16)


def _shared_bytes(spec: DeploymentSpec, capabilities: Capabilities) -> int:
    """Memory of which a KV cache takes a share; 0 where it is to fill what weights leave of one."""
    own_gpu = spec.hardware.gpu is not None and _is_local(spec)
    elsewhere = spec.hardware.provisioner is ProvisionerName.AWS
    return 0 if own_gpu or elsewhere else capabilities.memory_bytes


def _kv_cache_bytes(
    spec: DeploymentSpec, facts: ModelFacts, context: int, precision: Precision, memory: int
) -> int:
    if spec.model.task.encodes:
        return 0
    if spec.runtime.kv_cache is not None:
        return int(spec.runtime.kv_cache)
    one_sequence = context * kv_bytes_per_token(facts, precision)
    return min(spec.runtime.max_sequences * one_sequence, max(one_sequence, memory // KV_SHARE))


def _spilled_beside(spec: DeploymentSpec) -> int:
    """What spilled prefixes take of the memory that the model is in."""
    spill = spec.runtime.kv_spill
    return 0 if spill is None or spec.hardware.gpu is not None else int(spill.memory or 0)


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
    if _precision(spec, facts, capabilities) not in available:
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
    own = capabilities.gpu if _is_local(spec) else None
    wrong = gpu_issue(spec, own, at_most=capabilities.gpus_per_replica)
    wrong = wrong or division_issue(spec, facts)
    return [*issues, *filter(None, (wrong, speculation_issue(spec)))]


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
        least = context * kv_bytes_per_token(facts, _precision(spec, facts, capabilities))
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
    if not _is_local(spec):
        issues.append(
            SpecIssue(
                "model.source",
                spec.model.source,
                f"{spec.model.source!r} is an artifact, and those are served on this machine only; "
                f"use provisioner {LOCAL}, or deploy the model that it was built from",
            )
        )
    return issues


def _placed(
    spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan, capabilities: Capabilities
) -> ResolvedPlan | SpecIssue:
    """The plan where its replicas will be, or why there is no room for one."""
    if too_big := _exceeds_bound(spec, plan):
        return too_big
    most = _kv_most_bytes(spec, facts, plan)
    if _is_local(spec):
        if plan.gpu is not None and capabilities.gpu is not None:
            return on_own_gpu(spec, plan, capabilities.gpu, kv_most_bytes=most)
        return _beyond_machine(spec, plan, capabilities) or plan
    if spec.hardware.provisioner is not ProvisionerName.AWS or capabilities.market is None:
        return plan
    return on_offer(
        spec,
        plan,
        capabilities.market,
        kv_most_bytes=most,
        read_bytes=read_bytes(facts, Precision(plan.precision)),
        gpus_at_most=capabilities.gpus_per_replica,
    )


def _room_bytes(spec: DeploymentSpec, plan: ResolvedPlan, capabilities: Capabilities) -> int | None:
    """What one replica can have of its device, on the largest of those for rent; None where the
    device is not known.
    """
    room: int | None
    if not _is_local(spec):
        is_rented = spec.hardware.provisioner is ProvisionerName.AWS
        market = capabilities.market if is_rented else None
        if market is None or (room := largest_gpu_bytes(spec, market)) is None:
            return None
    elif plan.gpu is not None and capabilities.gpu is not None:
        room = gpu_share(plan, capabilities.gpu)
    else:
        room = capabilities.memory_bytes
    bound = spec.hardware.memory
    return room if bound is None else min(room, int(bound))


def _kv_most_bytes(spec: DeploymentSpec, facts: ModelFacts, plan: ResolvedPlan) -> int:
    """What a KV cache can make use of: every sequence of a batch at its full length."""
    if spec.model.task.encodes or spec.runtime.kv_cache is not None:
        return plan.kv_cache_bytes
    token = kv_bytes_per_token(facts, Precision(plan.precision))
    return plan.max_sequences * plan.context_tokens * token


def _is_local(spec: DeploymentSpec) -> bool:
    return spec.hardware.provisioner is ProvisionerName.LOCAL


REMEDY = "lower runtime.context_tokens, runtime.max_sequences or runtime.kv_cache"


def _exceeds_bound(spec: DeploymentSpec, plan: ResolvedPlan) -> SpecIssue | None:
    bound = spec.hardware.memory
    if bound is None or plan.memory_bytes <= bound:
        return None
    return SpecIssue(
        "hardware.memory",
        int(bound),
        f"one replica needs {need(plan)}, more than {size(int(bound))}; raise it, or "
        f"{remedy(plan)}{REMEDY}",
    )


def _beyond_machine(
    spec: DeploymentSpec, plan: ResolvedPlan, capabilities: Capabilities
) -> SpecIssue | None:
    if plan.memory_bytes <= capabilities.memory_bytes:
        return None
    return SpecIssue(
        "model.source",
        spec.model.source,
        f"one replica needs {need(plan)}, and this machine has "
        f"{size(capabilities.memory_bytes)} for replicas; {remedy(plan)}{REMEDY}, or use a "
        "smaller model",
    )


def machine_bytes(plan: ResolvedPlan) -> int:
    """Predicted memory that one replica takes of the control plane's machine."""
    return host_bytes(plan) if plan.provisioner == LOCAL else 0
