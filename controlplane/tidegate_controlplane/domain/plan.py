"""From a declaration and the facts of its model to a resolved plan, or to every reason why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tidegate.protocol.resources import ConsideredOffer, ModelFacts, PlannedHeads, ResolvedPlan
from tidegate.spec import (
    DeploymentSpec,
    Mode,
    Precision,
    ProvisionerName,
    SpecIssue,
)
from tidegate_controlplane.domain.adapters import Updates, loaded_bytes
from tidegate_controlplane.domain.capabilities import LOCAL, Capabilities, is_local
from tidegate_controlplane.domain.division import (
    division_cost,
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
    weights_bytes,
)
from tidegate_controlplane.domain.heads import with_heads
from tidegate_controlplane.domain.offload import (
    offload_cost,
    offload_remedy,
    with_automatic_offload,
    with_offload,
)
from tidegate_controlplane.domain.on_offer import considered
from tidegate_controlplane.domain.placement import placed, room_bytes
from tidegate_controlplane.domain.precision import chosen_precision, suiting_precision
from tidegate_controlplane.domain.size import size
from tidegate_controlplane.domain.unservable import issues

MAX_ADAPTERS = 8
KV_SHARE = 16
"""The default KV cache takes at most one sixteenth of the machine's memory."""
IDLE_TIMEOUT_S = {Mode.REALTIME: 300.0, Mode.SERVERLESS: 300.0, Mode.ASYNC: 60.0, Mode.BATCH: 15.0}

CLEAR_S = {Mode.REALTIME: 10.0, Mode.SERVERLESS: 10.0, Mode.ASYNC: 60.0, Mode.BATCH: 600.0}
"""Seconds that a backlog may last once replicas are ready: the less somebody waits for it, the
longer, and the fewer replicas it takes."""


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
    heads: PlannedHeads | None = None,
    adapters: Iterable[Updates] = (),
) -> ResolvedPlan | Refusal:
    """Fill every default and predict the memory of one replica; refuse what cannot run.

    `draft` is the model that `spec` names for its speculation, ValueError when it is missing;
    `heads` are those it names, None in a revision from before they were planned; `adapters` are
    those declared whose weights are known.
    """
    if (draft is None) is not (declared_source(spec) is None):
        raise ValueError(f"{spec.name!r} is planned without its draft model")
    drafting = suiting_precision(spec, draft.facts, capabilities) if draft else Precision.AUTO
    unfit = draft and unfit_draft(spec, draft, drafting, capabilities.precisions)
    found = [*issues(spec, facts, capabilities), *([unfit] if unfit else [])]
    if found:
        return Refusal(tuple(found))
    precision = chosen_precision(spec, facts, capabilities)
    context = spec.runtime.context_tokens or facts.context_tokens
    weights = weights_bytes(facts, precision)
    kv_cache = _kv_cache_bytes(spec, facts, context, precision, _shared_bytes(spec, capabilities))
    most_adapters = spec.runtime.max_adapters or MAX_ADAPTERS
    on_gpu = spec.hardware.gpu is not None
    devices = tensor_parallel(spec)
    loaded = loaded_bytes(adapters, most_adapters, precision, on_gpu=on_gpu, devices=devices)
    low, high = replica_bounds(spec)
    plan = ResolvedPlan(
        provisioner=spec.hardware.provisioner.value,
        precision=precision.value,
        context_tokens=context,
        max_sequences=spec.runtime.max_sequences,
        kv_cache_bytes=kv_cache,
        weights_bytes=weights,
        memory_bytes=weights + kv_cache + devices * PROCESS_BYTES + _spilled_beside(spec) + loaded,
        adapters_bytes=loaded,
        max_adapters=most_adapters,
        threads=spec.hardware.cpu,
        gpu=spec.hardware.gpu,
        tensor_parallel=devices,
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
    plan = with_heads(with_draft(plan, facts, draft, drafting), heads)
    room = room_bytes(spec, plan, capabilities)
    held = with_offload(spec, facts, plan, room)
    if isinstance(held, SpecIssue):
        return Refusal((held,))
    there = placed(spec, facts, held, capabilities)
    if not isinstance(there, SpecIssue):
        return there
    streamed = with_automatic_offload(spec, facts, plan, room)
    if streamed is None or isinstance(placed(spec, facts, streamed, capabilities), SpecIssue):
        return Refusal((there,))
    message = f"{there.message}; or {offload_remedy(streamed)}"
    return Refusal((replace(there, message=message),))


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


def fingerprint(
    spec: DeploymentSpec,
    model_digest: str,
    draft_digest: str | None = None,
    heads_digest: str | None = None,
) -> str:
    """What decides whether running replicas still fit: what they read, and how it is run.

    Scaling, objectives, rollout, labels and adapters change without new replicas. Defaults are left
    out, so that a platform that learns another field keeps the replicas of those who do not use it.
    """
    run: dict[str, Any] = {
        "name": spec.name,
        "digest": model_digest,
        "model": spec.model.model_dump(mode="json", exclude_defaults=True),
        "runtime": spec.runtime.model_dump(
            mode="json", exclude={"adapters"}, exclude_defaults=True
        ),
        "hardware": spec.hardware.model_dump(mode="json", exclude_defaults=True),
    }
    if draft_digest is not None:
        run["draft"] = draft_digest
    if heads_digest is not None:
        run["heads"] = heads_digest
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def _idle_timeout_s(spec: DeploymentSpec) -> float | None:
    """None where it is to be learned."""
    asked = spec.scaling.idle_timeout_s
    if asked == "auto":
        return None
    return IDLE_TIMEOUT_S[spec.mode] if asked is None else asked


def _shared_bytes(spec: DeploymentSpec, capabilities: Capabilities) -> int:
    """Memory of which a KV cache takes a share; 0 where it is to fill what weights leave of one."""
    own_gpu = spec.hardware.gpu is not None and is_local(spec)
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


def machine_bytes(plan: ResolvedPlan) -> int:
    """Predicted memory that one replica takes of the control plane's machine."""
    return host_bytes(plan) if plan.provisioner == LOCAL else 0
