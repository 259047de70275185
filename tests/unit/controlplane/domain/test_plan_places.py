"""What a plan is where GPUs are wished for, and where machines are rented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.offers import Covers, bundled_offers
from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, Precision, SpecIssue
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.footprint import PROCESS_BYTES, kv_bytes_per_token, weights_bytes
from tidegate_controlplane.domain.gpus import MachineGpu
from tidegate_controlplane.domain.on_offer import Market, share_usd_per_hour, staying
from tidegate_controlplane.domain.plan import (
    Refusal,
    alternatives,
    machine_bytes,
    resolve,
    warnings,
)

GIB = 1024**3
EIGHT_BILLION = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    digest="sha256:a",
    parameters=8_030_261_248,
    weights_bytes=16_060_522_496,
    context_tokens=131_072,
    layers=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128_256,
    embedding_parameters=128_256 * 4096,
    tied=False,
)
SEVENTY_BILLION = EIGHT_BILLION.model_copy(
    update={
        "parameters": 70_553_706_496,
        "layers": 80,
        "embedding_parameters": 128_256 * 8192,
    }
)
PLATFORM = Capabilities(
    provisioners=frozenset({"local", "ray", "aws"}),
    precisions=frozenset({Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4}),
    memory_bytes=2 * GIB,
    cores=2,
    market=Market(Covers.SAGEMAKER, "us-west-2", bundled_offers()),
)
UNDIVIDED = replace(PLATFORM, gpus_per_replica=1)
ON_GPU = {"provisioner": "aws", "gpu": {}}


def spec(mode: str = "serverless", hardware: Any = None, **parts: Any) -> DeploymentSpec:
    declared = {"name": "llama", "model": "/models/llama", "mode": mode, **parts}
    return DeploymentSpec.model_validate({**declared, "hardware": hardware or ON_GPU})


def planned(
    declared: DeploymentSpec,
    facts: ModelFacts = EIGHT_BILLION,
    platform: Capabilities = PLATFORM,
) -> ResolvedPlan:
    plan = resolve(declared, facts, platform)
    assert isinstance(plan, ResolvedPlan), plan
    return plan


def refused(
    declared: DeploymentSpec,
    facts: ModelFacts = EIGHT_BILLION,
    platform: Capabilities = PLATFORM,
) -> SpecIssue:
    plan = resolve(declared, facts, platform)
    assert isinstance(plan, Refusal), plan
    (issue,) = plan.issues
    return issue


def test_a_rented_machine_is_chosen_though_this_one_is_far_too_small() -> None:
    plan = planned(spec())
    assert plan.offer is not None
    assert (plan.offer.instance_type, plan.offer.region) == ("ml.g6.xlarge", "us-west-2")
    assert (plan.offer.gpu, plan.offer.gpus, plan.offer.replicas) == ("L4", 1, 1)
    assert plan.offer.usd_per_hour == 1.1267
    assert plan.offer.source.startswith("AWS Price List API") and plan.offer.as_of
    assert machine_bytes(plan) == 0
    assert warnings(plan, EIGHT_BILLION, PLATFORM) == []


def test_the_cache_fills_what_the_weights_leave_of_the_gpu() -> None:
    plan = planned(spec())
    assert plan.offer is not None
    assert plan.memory_bytes == plan.offer.usable_bytes
    assert plan.kv_cache_bytes == plan.memory_bytes - plan.weights_bytes - PROCESS_BYTES
    short = planned(spec(runtime={"context_tokens": 2048, "max_sequences": 4}))
    token = kv_bytes_per_token(EIGHT_BILLION, Precision.INT8)
    assert short.kv_cache_bytes == 4 * 2048 * token
    bound = planned(spec(hardware={**ON_GPU, "memory": "18GiB"}))
    assert bound.memory_bytes == 18 * GIB


def test_nothing_is_paid_for_at_rest_where_the_minimum_is_zero() -> None:
    serverless, realtime = planned(spec()).offer, planned(spec("realtime")).offer
    assert serverless is not None and realtime is not None
    assert serverless.minimum_usd_per_month == 0
    assert realtime.minimum_usd_per_month == round(1.1267 * 730, 2)


def test_the_speed_that_memory_allows_is_told_with_the_price_it_makes() -> None:
    plan = planned(spec())
    assert plan.offer is not None and plan.offer.decode_tokens_per_s is not None
    embedding = EIGHT_BILLION.embedding_parameters * 2
    read = weights_bytes(EIGHT_BILLION, Precision.INT8) - embedding
    assert plan.offer.decode_tokens_per_s == round(300e9 / read, 1)
    assert plan.offer.batch_tokens_per_s == pytest.approx(16 * 300e9 / read, abs=0.1)
    dollars = 1.1267 / (16 * 300e9 / read * 3600) * 1e6
    assert plan.offer.usd_per_million_tokens == pytest.approx(dollars, abs=1e-4)


def test_all_offers_that_were_looked_at_are_told_with_their_reasons() -> None:
    declared = spec(runtime={"precision": "bf16"})
    plan = planned(declared)
    assert plan.offer is not None
    looked_at = alternatives(declared, EIGHT_BILLION, plan, PLATFORM)
    assert looked_at[0].instance_type == plan.offer.instance_type == "ml.g6e.xlarge"
    assert looked_at[0].usd_per_month == round(2.6054 * 730, 2)
    too_small = next(each for each in looked_at if each.instance_type == "ml.g6.xlarge")
    assert too_small.usd_per_month is None
    assert too_small.reason is not None and "20.1 GiB (90% of 1 x L4)" in too_small.reason
    assert len(looked_at) == sum(
        (offer.covers, offer.region) == (Covers.SAGEMAKER, "us-west-2")
        for offer in bundled_offers()
    )


def test_a_model_that_fits_no_offer_is_told_what_would_help() -> None:
    issue = refused(spec(runtime={"precision": "bf16"}), SEVENTY_BILLION)
    assert (issue.field, issue.value) == ("hardware.gpu", {"type": None, "count": 1})
    assert "(weights 131.4 GiB, KV cache" in issue.message
    assert "the largest is ml.p5.48xlarge" in issue.message
    assert "lower runtime.precision" in issue.message
    helped = spec(runtime={"precision": "int4", "context_tokens": 32_768})
    assert planned(helped, SEVENTY_BILLION).offer is not None


def test_without_a_gpu_a_replica_is_put_on_processors_alone() -> None:
    east = replace(PLATFORM, market=replace(PLATFORM.market, region="us-east-1"))
    small = EIGHT_BILLION.model_copy(update={"parameters": 500_000_000, "embedding_parameters": 0})
    declared = spec(hardware={"provisioner": "aws"}, runtime={"context_tokens": 4096})
    plan = planned(declared, small, east)
    assert plan.offer is not None
    assert (plan.offer.instance_type, plan.offer.gpu) == ("ml.c5.xlarge", None)
    assert plan.offer.decode_tokens_per_s is None
    threads = spec(hardware={"provisioner": "aws", "cpu": 8}, runtime={"context_tokens": 4096})
    more = planned(threads, small, east).offer
    assert more is not None and more.instance_type == "ml.c5.2xlarge"


def test_a_place_without_known_prices_names_the_command_that_asks_for_them() -> None:
    there = replace(PLATFORM, market=replace(PLATFORM.market, region="eu-west-3"))
    issue = refused(spec(), platform=there)
    assert issue.message.endswith("run: tidegate offers refresh --region eu-west-3")


def test_prices_asked_since_do_not_move_what_runs() -> None:
    runs, now = planned(spec("realtime")), on_sale("ml.g6.xlarge", 3.0)
    again = planned(spec("realtime", scaling={"min_replicas": 2}), platform=now)
    assert again.offer is not None and again.offer.instance_type == "ml.g6.2xlarge"
    stays = staying(again, runs)
    assert stays.offer is not None and stays.offer.instance_type == "ml.g6.xlarge"
    assert stays.offer.minimum_usd_per_month == round(2 * 1.1267 * 730, 2)
    assert (stays.min_replicas, stays.memory_bytes) == (2, runs.memory_bytes)


def test_this_machines_memory_plays_no_part_in_what_is_rented() -> None:
    assert planned(spec(), platform=replace(PLATFORM, memory_bytes=1024 * GIB)) == planned(spec())


def test_others_are_judged_by_the_least_and_not_by_what_fills_the_chosen_one() -> None:
    sale = on_sale("ml.g6e.xlarge", 0.1)
    plan = planned(spec(), platform=sale)
    assert plan.offer is not None and plan.offer.instance_type == "ml.g6e.xlarge"
    looked_at = alternatives(spec(), EIGHT_BILLION, plan, sale)
    smaller = next(each for each in looked_at if each.instance_type == "ml.g6.xlarge")
    assert smaller.usd_per_month is not None


def on_sale(instance_type: str, usd_per_hour: float) -> Capabilities:
    """The platform, with another price for one machine."""
    assert PLATFORM.market is not None
    offers = [
        offer.model_copy(update={"usd_per_hour": usd_per_hour})
        if offer.instance_type == instance_type
        else offer
        for offer in PLATFORM.market.offers
    ]
    return replace(PLATFORM, market=replace(PLATFORM.market, offers=offers))


def test_replicas_that_are_always_there_may_share_a_larger_machine() -> None:
    sale = on_sale("ml.g6.12xlarge", 4.0)
    short = {"context_tokens": 8192}
    alone = planned(spec(runtime=short), platform=sale).offer
    four = spec("realtime", runtime=short, scaling={"min_replicas": 4})
    together = planned(four, platform=sale).offer
    assert alone is not None and alone.instance_type == "ml.g6.xlarge"
    assert together is not None and together.instance_type == "ml.g6.12xlarge"
    assert together.minimum_usd_per_month == 4.0 * 730


def test_a_replica_costs_its_share_of_a_machine() -> None:
    plan = planned(spec())
    assert plan.offer is not None
    assert share_usd_per_hour(plan.offer.model_copy(update={"replicas": 4})) == 1.1267 / 4


# --- wishes for GPUs elsewhere and here -----------------------------------------------------------


def test_on_a_cluster_a_wish_for_a_gpu_is_part_of_the_plan() -> None:
    plan = planned(spec(hardware={"provisioner": "ray", "gpu": {"type": "H200"}}))
    assert plan.gpu is not None and plan.gpu.model_dump() == {"type": "H200", "count": 1}
    assert plan.offer is None


HERE = {"provisioner": "local", "gpu": {"type": "L4"}}
OWN = replace(PLATFORM, memory_bytes=32 * GIB, gpu=MachineGpu("NVIDIA L4", 24 * GIB))


@pytest.mark.parametrize(
    ("hardware", "platform", "parts", "said"),
    [
        (HERE, PLATFORM, {}, "this machine has no GPU; remove it, or set hardware.provisioner"),
        ({**HERE, "gpu": {"type": "H100"}}, OWN, {}, "this machine's GPU is NVIDIA L4"),
        ({**HERE, "gpu": {"count": 2}}, OWN, {}, "this machine has 1 x NVIDIA L4; set"),
        ({**ON_GPU, "gpu": {"count": 2}}, UNDIVIDED, {}, "raise scaling.max_replicas"),
        (HERE, OWN, {"scaling": {"max_replicas": 2}}, "2 of them share 21.6 GiB (90%)"),
        (
            HERE,
            OWN,
            {"model": {"source": "/models/llama", "task": "embed"}},
            "model.task 'embed' runs on processors; remove it",
        ),
    ],
)
def test_a_gpu_that_cannot_be_had_is_refused_with_the_reason(
    hardware: Any, platform: Capabilities, parts: Any, said: str
) -> None:
    issue = refused(spec(hardware=hardware, **parts), platform=platform)
    assert issue.field == "hardware.gpu" and issue.value is not None
    assert said in issue.message


def test_this_machines_gpu_is_filled_by_its_replicas_in_equal_shares() -> None:
    usable = int(24 * GIB * 0.9)
    one = planned(spec(hardware=HERE), platform=OWN)
    assert one.memory_bytes == usable
    short = {"context_tokens": 8192}
    two = planned(spec(hardware=HERE, runtime=short, scaling={"max_replicas": 2}), platform=OWN)
    assert two.memory_bytes <= usable // 2
    assert machine_bytes(two) == two.weights_bytes + PROCESS_BYTES


def test_this_machines_gpus_hold_equal_parts_of_a_model_that_is_too_large_for_one() -> None:
    four = replace(OWN, gpu=MachineGpu("NVIDIA L4", 24 * GIB, count=4))
    divided = spec(hardware={**HERE, "gpu": {"count": 4}}, runtime={"context_tokens": 8192})
    plan = planned(divided, SEVENTY_BILLION, four)
    assert plan.tensor_parallel == 4
    assert int(24 * GIB * 0.9) < plan.memory_bytes <= 4 * int(24 * GIB * 0.9)


def test_a_model_is_divided_over_all_gpus_of_its_replica() -> None:
    plan = planned(
        spec(hardware={"provisioner": "aws", "gpu": {"type": "H100", "count": 4}}),
        SEVENTY_BILLION,
    )
    assert plan.tensor_parallel == 4
    (cost,) = warnings(plan, SEVENTY_BILLION, PLATFORM)
    # Two sums a layer and one of the embeddings, 8192 numbers of two bytes each.
    assert "4 devices wait for each other 161 times and exchange 161 x 16.4 kB" in cost
    assert plan.offer is not None
    assert (plan.offer.instance_type, plan.offer.gpus, plan.offer.replicas) == (
        "ml.p5.48xlarge",
        4,
        2,
    )
