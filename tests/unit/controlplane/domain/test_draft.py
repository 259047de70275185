"""A draft model in a plan: what it takes beside the model, and which one may guess for which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.offers import Covers, bundled_offers
from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, Precision, SpecIssue
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.draft import Draft, unlike_tokens
from tidegate_controlplane.domain.footprint import (
    PROCESS_BYTES,
    host_bytes,
    kv_bytes_per_token,
    weights_bytes,
)
from tidegate_controlplane.domain.gpus import MachineGpu
from tidegate_controlplane.domain.on_offer import Market
from tidegate_controlplane.domain.plan import Refusal, fingerprint, resolve, warnings
from tidegate_controlplane.domain.size import need

GIB = 1024**3
FACTS = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    digest="sha256:large",
    parameters=1_000_000_000,
    weights_bytes=4_000_000_000,
    context_tokens=8192,
    layers=16,
    kv_heads=8,
    head_dim=64,
    vocabulary=32_000,
    embedding_parameters=32_000 * 2048,
    tokens_digest="sha256:tokens",
)
SMALL = FACTS.model_copy(
    update={
        "digest": "sha256:small",
        "parameters": 100_000_000,
        "layers": 4,
        "embedding_parameters": 32_000 * 512,
    }
)
MACHINE = Capabilities(
    provisioners=frozenset({"local", "ray", "aws"}),
    precisions=frozenset({Precision.BF16, Precision.FP32, Precision.INT8, Precision.INT4}),
    memory_bytes=64 * GIB,
    cores=4,
    market=Market(Covers.SAGEMAKER, "us-west-2", ()),
)
ASKED = {"method": "draft", "draft_model": "/models/small", "max_tokens": 4}


def spec(runtime: dict[str, Any] | None = None, **parts: Any) -> DeploymentSpec:
    asked = {"speculation": ASKED, **(runtime or {})}
    declared = {"name": "llama", "model": "/models/large", "mode": "serverless", "runtime": asked}
    return DeploymentSpec.model_validate({**declared, **parts})


def planned(
    declared: DeploymentSpec,
    draft: ModelFacts = SMALL,
    machine: Capabilities = MACHINE,
    revision: str | None = None,
) -> ResolvedPlan:
    plan = resolve(declared, FACTS, machine, draft=Draft(draft, revision))
    assert isinstance(plan, ResolvedPlan), plan
    return plan


def refused(
    declared: DeploymentSpec, draft: ModelFacts = SMALL, machine: Capabilities = MACHINE
) -> SpecIssue:
    plan = resolve(declared, FACTS, machine, draft=Draft(draft, None))
    assert isinstance(plan, Refusal), plan
    (issue,) = plan.issues
    return issue


def without(declared: DeploymentSpec, machine: Capabilities = MACHINE) -> ResolvedPlan:
    """The plan of the same declaration without a draft model."""
    runtime = declared.runtime.model_copy(update={"speculation": None})
    plan = resolve(declared.model_copy(update={"runtime": runtime}), FACTS, machine)
    assert isinstance(plan, ResolvedPlan), plan
    return plan


def tokens_of(plan: ResolvedPlan) -> tuple[int, int]:
    """What the KV caches of the model and of its draft model hold."""
    assert plan.draft is not None
    precision = Precision(plan.draft.precision)
    return (
        plan.kv_cache_bytes // kv_bytes_per_token(FACTS, Precision(plan.precision)),
        plan.draft.kv_cache_bytes // kv_bytes_per_token(SMALL, precision),
    )


# --- what it takes --------------------------------------------------------------------------------


def test_a_draft_model_is_planned_with_its_digest_and_its_memory() -> None:
    plan, alone = planned(spec(), revision="abc"), without(spec())
    draft = plan.draft
    assert draft is not None and plan.speculation is not None
    assert plan.speculation.model_dump(exclude_none=True) == ASKED
    assert (draft.digest, draft.revision, draft.precision) == ("sha256:small", "abc", "int8")
    assert draft.weights_bytes == weights_bytes(SMALL, Precision.INT8)
    assert plan.weights_bytes == alone.weights_bytes
    assert plan.memory_bytes - alone.memory_bytes == draft.weights_bytes + draft.kv_cache_bytes
    assert "draft model" in need(plan) and "draft model" not in need(alone)
    assert need(plan).endswith(f"process {PROCESS_BYTES // 1024**2} MiB)")


@pytest.mark.parametrize("runtime", [{}, {"kv_cache": "1GiB"}, {"context_tokens": 1024}])
def test_both_caches_hold_the_same_tokens(runtime: dict[str, Any]) -> None:
    plan = planned(spec(runtime))
    assert plan.kv_cache_bytes == without(spec(runtime)).kv_cache_bytes
    model, draft = tokens_of(plan)
    assert 0 <= draft - model <= 1


def test_nothing_is_kept_of_what_is_beyond_the_context_of_the_draft_model() -> None:
    short = SMALL.model_copy(update={"context_tokens": 512})
    _, held = tokens_of(planned(spec({"kv_cache": "8GiB"}), short))
    assert held == 16 * 512


def test_an_artifact_guesses_in_its_own_precision() -> None:
    packed = SMALL.model_copy(update={"precision": "int4"})
    plan = planned(spec({"precision": "bf16"}), packed)
    assert plan.draft is not None
    assert (plan.precision, plan.draft.precision) == ("bf16", "int4")


def test_on_a_gpu_the_caches_fill_what_is_left_together() -> None:
    machine = replace(MACHINE, gpu=MachineGpu("NVIDIA L4", 24 * GIB))
    declared = spec({"max_sequences": 256}, hardware={"gpu": {}})
    plan, usable = planned(declared, machine=machine), int(24 * GIB * 0.9)
    assert 0 <= usable - plan.memory_bytes < 4096
    model, draft = tokens_of(plan)
    assert abs(model - draft) <= 2
    assert plan.draft is not None
    both = plan.weights_bytes + plan.draft.weights_bytes
    assert host_bytes(plan) == both + PROCESS_BYTES, "a cache on a GPU is none of the machine's"


def test_a_machine_without_room_for_both_says_what_the_draft_model_takes() -> None:
    small = replace(MACHINE, memory_bytes=int(1.25 * GIB))
    assert without(spec(), small).memory_bytes < small.memory_bytes
    assert "draft model" in refused(spec(), machine=small).message


def test_a_draft_model_about_as_large_as_the_model_is_warned_of() -> None:
    assert warnings(planned(spec()), FACTS, MACHINE) == []
    (said,) = warnings(planned(spec(), FACTS), FACTS, MACHINE)
    assert said.startswith("runtime.speculation.draft_model: its weights take ")
    assert said.endswith("use a smaller one")


def test_other_files_of_the_draft_model_are_another_run() -> None:
    runs = {fingerprint(spec(), "sha256:a", draft) for draft in (None, "sha256:b", "sha256:c")}
    assert len(runs) == 3


def test_a_plan_is_not_made_without_the_draft_model_that_is_declared() -> None:
    with pytest.raises(ValueError, match="without its draft model"):
        resolve(spec(), FACTS, MACHINE)


# --- what is refused ------------------------------------------------------------------------------

FIELD = "runtime.speculation.draft_model"
ARTIFACT = SMALL.model_copy(update={"precision": "int8"})


@pytest.mark.parametrize(
    ("parts", "draft", "field", "remedy"),
    [
        (
            {"hardware": {"provisioner": "aws"}},
            SMALL,
            FIELD,
            "copy it there, `aws s3 sync /models/small s3://BUCKET/PREFIX/`, and name that address",
        ),
        (
            {"hardware": {"provisioner": "ray"}},
            ARTIFACT,
            FIELD,
            "is an artifact, and those are read on this machine only; use provisioner local",
        ),
        (
            {"runtime": {"speculation": ASKED, "tensor_parallel": 2}},
            SMALL,
            "runtime.speculation.method",
            "runs on one device, and the model is divided over 2; use 'ngram'",
        ),
    ],
)
def test_a_draft_model_that_cannot_run_there_is_refused(
    parts: dict[str, Any], draft: ModelFacts, field: str, remedy: str
) -> None:
    issue = refused(spec(**parts), draft)
    assert issue.field == field
    assert issue.value == ("draft" if field.endswith("method") else "/models/small")
    assert remedy in issue.message


def test_a_draft_model_in_a_precision_that_is_not_available_is_refused() -> None:
    plain = replace(MACHINE, precisions=frozenset({Precision.BF16}))
    issue = refused(spec(), ARTIFACT, plain)
    assert issue.field == FIELD
    assert "would be served in int8, which is not available on this platform" in issue.message


def test_on_a_cluster_a_draft_model_is_part_of_the_plan() -> None:
    assert planned(spec(hardware={"provisioner": "ray"})).draft is not None


def test_a_draft_model_has_the_tokens_of_the_model() -> None:
    assert unlike_tokens(spec(), FACTS, SMALL) is None
    padded = SMALL.model_copy(update={"vocabulary": 32_064})
    assert unlike_tokens(spec(), FACTS, padded) is None, "rows beyond the tokens mean none"
    issue = unlike_tokens(spec(), FACTS, SMALL.model_copy(update={"tokens_digest": "sha256:x"}))
    assert issue is not None
    assert (issue.field, issue.value) == (FIELD, "/models/small")
    assert "has other tokens (32000 of them) than the model '/models/large'" in issue.message
    assert "use a smaller model of the same family" in issue.message


@pytest.mark.parametrize("nameless", ["/models/large", "/models/small"])
def test_tokens_that_are_not_told_cannot_be_compared(nameless: str) -> None:
    facts, small = (
        each.model_copy(update={"tokens_digest": None}) if source == nameless else each
        for each, source in ((FACTS, "/models/large"), (SMALL, "/models/small"))
    )
    issue = unlike_tokens(spec(), facts, small)
    assert issue is not None
    assert f"no tokenizer.json of {nameless!r} says its tokens" in issue.message


def test_a_draft_model_in_s3_is_planned_on_aws() -> None:
    rented = replace(MACHINE, market=Market(Covers.SAGEMAKER, "us-west-2", bundled_offers()))
    speculation = {**ASKED, "draft_model": "s3://models/small"}
    asked = {"speculation": speculation, "max_sequences": 256}
    declared = spec(asked, hardware={"provisioner": "aws", "gpu": {"type": "L4"}})
    plan, alone = planned(declared, machine=rented), without(declared, rented)
    assert plan.draft is not None and plan.offer is not None
    assert plan.kv_cache_bytes < alone.kv_cache_bytes, "one GPU holds both"
    model, draft = tokens_of(plan)
    assert abs(model - draft) <= 2
