"""Heads in a plan: what they take beside the model, and which may guess for which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.controlplane.domain.test_draft import FACTS, GIB, MACHINE

from tidegate.offers import Covers, bundled_offers
from tidegate.protocol.resources import PlannedHeads, ResolvedPlan
from tidegate.spec import DeploymentSpec, SpecIssue
from tidegate_controlplane.domain.footprint import host_bytes
from tidegate_controlplane.domain.gpus import MachineGpu
from tidegate_controlplane.domain.heads import Heads, unlike_heads
from tidegate_controlplane.domain.on_offer import Market
from tidegate_controlplane.domain.plan import Refusal, fingerprint, resolve
from tidegate_controlplane.domain.size import need

PLANNED = PlannedHeads(digest="sha256:heads", weights_bytes=12_000_000)
HEADS = Heads(PLANNED, "hydra", None, 2048, 32_000, "/models/large")
ASKED = {"method": "hydra", "heads": "/heads"}
EARLY = {"method": "early_exit", "heads": "/heads"}


def spec(asked: dict[str, Any] = ASKED, **parts: Any) -> DeploymentSpec:
    runtime = {"speculation": asked, **parts.pop("runtime", {})}
    declared = {"name": "llama", "model": "/models/large", "mode": "serverless"}
    return DeploymentSpec.model_validate({**declared, "runtime": runtime, **parts})


def planned(declared: DeploymentSpec, heads: PlannedHeads | None, **machine: Any) -> ResolvedPlan:
    plan = resolve(declared, FACTS, replace(MACHINE, **machine), heads=heads)
    assert isinstance(plan, ResolvedPlan), plan
    return plan


# --- what they take -------------------------------------------------------------------------------


@pytest.mark.parametrize("provisioner", ["local", "ray"])
def test_heads_are_planned_with_their_digest_and_their_memory(provisioner: str) -> None:
    declared = spec(hardware={"provisioner": provisioner})
    plan, alone = planned(declared, PLANNED), planned(declared, None)
    assert plan.heads == PLANNED
    assert plan.memory_bytes - alone.memory_bytes == PLANNED.weights_bytes
    assert "heads 11 MiB" in need(plan)
    assert "heads" not in need(alone)


def test_on_a_gpu_heads_leave_the_cache_less_room() -> None:
    gpu = MachineGpu("NVIDIA L4", 24 * GIB)
    declared = spec(hardware={"gpu": {}}, runtime={"max_sequences": 256})
    plan, alone = (planned(declared, each, gpu=gpu) for each in (PLANNED, None))
    less = alone.kv_cache_bytes - plan.kv_cache_bytes
    assert less == pytest.approx(PLANNED.weights_bytes, abs=1 << 20)
    assert host_bytes(plan) - host_bytes(alone) == PLANNED.weights_bytes


def test_a_machine_without_room_for_both_says_what_heads_take() -> None:
    large = PLANNED.model_copy(update={"weights_bytes": 80 * GIB})
    plan = resolve(spec(), FACTS, MACHINE, heads=large)
    assert isinstance(plan, Refusal)
    assert "heads 80.0 GiB" in plan.issues[0].message


def test_other_heads_are_another_run() -> None:
    runs = {fingerprint(spec(), "sha256:a", None, heads) for heads in (None, "b", "c")}
    assert len(runs) == 3


# --- what is refused ------------------------------------------------------------------------------


def unlike(asked: dict[str, Any] = ASKED, **heads: Any) -> SpecIssue | None:
    return unlike_heads(spec(asked), FACTS, replace(HEADS, **heads))


def test_heads_of_the_model_are_taken() -> None:
    assert unlike() is None
    assert unlike(EARLY, method="early_exit", exit_layer=15) is None
    assert unlike({**EARLY, "exit_layer": 15}, method="early_exit", exit_layer=15) is None
    assert unlike(model="/models/its-sister") is None, "they may guess for a fine-tuned one"


@pytest.mark.parametrize(
    ("asked", "heads", "said"),
    [
        (ASKED, {"method": "medusa"}, "with the method medusa, and here it is hydra"),
        (ASKED, {"hidden": 1024}, "with the hidden size 1024, and here it is 2048"),
        (ASKED, {"vocabulary": 32_001}, "with the vocabulary 32001, and here it is 32000"),
        (
            {**EARLY, "exit_layer": 3},
            {"method": "early_exit", "exit_layer": 4},
            "with the exit layer 4, and here it is 3",
        ),
        (
            EARLY,
            {"method": "early_exit", "exit_layer": 16},
            "after layer 16, and the model has 16",
        ),
    ],
)
def test_heads_of_another_model_are_refused(
    asked: dict[str, Any], heads: dict[str, Any], said: str
) -> None:
    issue = unlike(asked, **heads)
    assert issue is not None
    assert (issue.field, issue.value) == ("runtime.speculation.heads", "/heads")
    assert issue.message.startswith("'/heads' were made for '/models/large' ")
    assert said in issue.message
    assert issue.message.endswith("make heads for this model with tidegate distill")


def test_facts_that_do_not_tell_the_hidden_size_refuse_nobody() -> None:
    old = FACTS.model_copy(update={"embedding_parameters": 0})
    assert unlike_heads(spec(), old, HEADS) is None


# --- on AWS ---------------------------------------------------------------------------------------

AWS = {"hardware": {"provisioner": "aws", "gpu": {"type": "L4"}}}
RENTED = replace(MACHINE, market=Market(Covers.SAGEMAKER, "us-west-2", bundled_offers()))


@pytest.mark.parametrize(
    ("asked", "value", "remedy"),
    [
        (ASKED, "/heads", "copy it there, `aws s3 sync /heads s3://BUCKET/PREFIX/`"),
        (
            {"method": "hydra", "heads": "hf://org/heads"},
            "hf://org/heads",
            "`hf download org/heads --local-dir DIRECTORY && aws s3 sync DIRECTORY s3://",
        ),
        (
            {"method": "hydra", "heads": "s3://bucket/heads.gguf"},
            "s3://bucket/heads.gguf",
            "name the prefix that it is in",
        ),
    ],
)
def test_on_aws_heads_are_where_sagemaker_finds_them(
    asked: dict[str, Any], value: str, remedy: str
) -> None:
    plan = resolve(spec(asked, **AWS), FACTS, RENTED, heads=PLANNED)
    assert isinstance(plan, Refusal)
    (issue,) = plan.issues
    assert (issue.field, issue.value) == ("runtime.speculation.heads", value)
    assert "cannot be brought to a copy on AWS" in issue.message
    assert remedy in issue.message


def test_heads_in_s3_are_planned_on_aws() -> None:
    declared = spec({"method": "hydra", "heads": "s3://bucket/heads"}, **AWS)
    plan = resolve(declared, FACTS, RENTED, heads=PLANNED)
    assert isinstance(plan, ResolvedPlan), plan
    assert (plan.provisioner, plan.heads) == ("aws", PLANNED)
