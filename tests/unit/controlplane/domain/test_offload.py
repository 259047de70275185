"""What a plan says of weights that do not fit their device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.controlplane.domain.test_plan_places import (
    EIGHT_BILLION,
    GIB,
    HERE,
    ON_GPU,
    OWN,
    PLATFORM,
    SEVENTY_BILLION,
    planned,
    refused,
    spec,
)

from tidegate.spec import Precision
from tidegate_controlplane.domain.footprint import PROCESS_BYTES, layer_bytes
from tidegate_controlplane.domain.plan import machine_bytes, warnings

LOCAL = {"provisioner": "local"}
SHORT = {"context_tokens": 4096, "max_sequences": 1}
SMALL = replace(PLATFORM, memory_bytes=4 * GIB)
LARGE = replace(PLATFORM, memory_bytes=16 * GIB)
RAY = {"provisioner": "ray"}
TWICE_SEVENTY = SEVENTY_BILLION.model_copy(update={"parameters": 140_000_000_000, "layers": 160})
LAYER = layer_bytes(EIGHT_BILLION, Precision.INT8)


def streamed(**runtime: Any) -> Any:
    return spec(hardware=LOCAL, runtime={**SHORT, "offload": {}, **runtime})


def test_weights_that_fit_are_not_streamed() -> None:
    large = replace(PLATFORM, memory_bytes=16 * GIB)
    assert planned(streamed(), platform=large).offload is None
    assert planned(streamed(offload={"memory": "16GiB"}), platform=large).offload is None


def test_a_model_that_is_too_large_for_the_machine_points_to_streaming_and_says_its_price() -> None:
    said = refused(spec(hardware=LOCAL, runtime=SHORT), platform=SMALL).message
    assert "use a smaller model; or set runtime.offload to {}: " in said
    would = planned(streamed(), platform=SMALL).offload
    assert would is not None
    assert f"{would.streamed_layers} layers" in said
    assert said.endswith(
        f"gets at most {1e9 / would.step_bytes:.3g} tokens a second for each GB/s of the disk"
    )


def test_a_bound_on_memory_points_to_streaming_within_the_bound() -> None:
    hardware = {**LOCAL, "memory": "5GiB"}
    said = refused(spec(hardware=hardware, runtime=SHORT), platform=LARGE).message
    would = planned(spec(hardware=hardware, runtime={**SHORT, "offload": {}}), platform=LARGE)
    assert would.offload is not None
    assert would.memory_bytes == 5 * GIB
    assert f"runtime.offload to {{}}: {would.offload.streamed_layers} layers" in said


@pytest.mark.parametrize(
    ("hardware", "precision", "platform"),
    [(HERE, "int4", OWN), ({**ON_GPU, "gpu": {"type": "L40S"}}, "int8", PLATFORM)],
    ids=["own GPU", "rented GPU"],
)
def test_a_gpu_that_is_too_small_points_to_streaming_over_its_link(
    hardware: Any, precision: str, platform: Any
) -> None:
    whole = {**SHORT, "precision": precision}
    said = refused(spec(hardware=hardware, runtime=whole), SEVENTY_BILLION, platform).message
    streaming = spec(hardware=hardware, runtime={**whole, "offload": {}})
    would = planned(streaming, SEVENTY_BILLION, platform)
    assert would.offload is not None
    per_s = 31.5e9 / would.offload.step_bytes
    assert said.endswith(f"gets at most {per_s:.3g} tokens a second over PCIe 4.0 x16")


def test_streaming_is_not_named_where_the_machines_own_memory_is_too_small_for_the_rest() -> None:
    market = PLATFORM.market
    assert market is not None
    smallest = [offer for offer in market.offers if offer.instance_type == "ml.g6e.xlarge"]
    platform = replace(PLATFORM, market=replace(market, offers=smallest))
    runtime = {**SHORT, "precision": "int8"}
    issue = refused(spec(hardware=ON_GPU, runtime=runtime), SEVENTY_BILLION, platform)
    assert "the largest is ml.g6e.xlarge" in issue.message
    assert "runtime.offload" not in issue.message


def test_a_rented_gpu_streams_no_more_layers_than_the_largest_must() -> None:
    declared = spec(hardware=ON_GPU, runtime={**SHORT, "offload": {}, "precision": "bf16"})
    plan = planned(declared, TWICE_SEVENTY)
    assert plan.offer is not None and plan.offload is not None
    market = PLATFORM.market
    assert market is not None
    largest = max(
        offer.gpu.memory_bytes
        for offer in market.offers
        if offer.gpu and (offer.covers, offer.region) == (market.covers, market.region)
    )
    assert plan.memory_bytes == int(largest * 0.9)
    resident = TWICE_SEVENTY.layers - plan.offload.streamed_layers
    layer = layer_bytes(TWICE_SEVENTY, Precision.BF16)
    beside = plan.weights_bytes - TWICE_SEVENTY.layers * layer
    assert 0 <= plan.offload.resident_bytes - beside - (resident + 2) * layer < layer


@pytest.mark.parametrize(
    ("hardware", "runtime", "platform"),
    [
        (LOCAL, {"precision": "fp32"}, SMALL),
        (LOCAL, {"tensor_parallel": 2}, SMALL),
        (LOCAL, {}, replace(SMALL, memory_bytes=GIB // 2)),
    ],
    ids=["fp32", "divided", "not two layers"],
)
def test_streaming_is_not_named_where_it_would_not_help(
    hardware: Any, runtime: Any, platform: Any
) -> None:
    issue = refused(spec(hardware=hardware, runtime={**SHORT, **runtime}), platform=platform)
    assert "runtime.offload" not in issue.message


def test_the_weights_take_what_the_rest_of_a_replica_leaves_of_the_machine() -> None:
    plan = planned(streamed(), platform=SMALL)
    assert plan.offload is not None
    assert plan.memory_bytes == 4 * GIB
    assert plan.offload.resident_bytes == 4 * GIB - plan.kv_cache_bytes - PROCESS_BYTES
    resident = EIGHT_BILLION.layers - plan.offload.streamed_layers
    beside = plan.weights_bytes - EIGHT_BILLION.layers * LAYER
    assert 0 <= plan.offload.resident_bytes - beside - (resident + 2) * LAYER < LAYER
    assert plan.offload.step_bytes == plan.offload.streamed_layers * LAYER


def test_the_cost_is_a_bound_in_words_and_figures() -> None:
    plan = planned(streamed(offload={"memory": "3GiB"}), platform=SMALL)
    assert plan.offload is not None and plan.offload.link == "disk"
    (cost,) = warnings(plan, EIGHT_BILLION, SMALL)
    per_gb = 1e9 / plan.offload.step_bytes
    assert f"at most {per_gb:.3g} steps a second for each GB/s that it gives" in cost


def test_on_a_gpu_layers_come_from_the_machines_memory_which_keeps_them_all() -> None:
    small = {"precision": "int4", **SHORT, "offload": {}}
    plan = planned(spec(hardware=HERE, runtime=small), SEVENTY_BILLION, OWN)
    assert plan.offload is not None and plan.offload.link == "host"
    assert plan.memory_bytes <= int(24 * GIB * 0.9)
    assert machine_bytes(plan) == plan.weights_bytes + PROCESS_BYTES
    (cost,) = warnings(plan, SEVENTY_BILLION, replace(OWN, memory_bytes=64 * GIB))
    assert f"at most {31.5e9 / plan.offload.step_bytes:.3g} steps a second" in cost


@pytest.mark.parametrize(
    ("hardware", "runtime", "said"),
    [
        (LOCAL, {"offload": {"memory": "1GiB"}}, "1.0 GiB hold less than the last layer and 2"),
        (LOCAL, {"offload": {}, "precision": "fp32"}, "only packed weights are streamed"),
        (RAY, {"offload": {}}, "the machine is not chosen yet; say how much"),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_the_remedy(
    hardware: Any, runtime: Any, said: str
) -> None:
    declared = spec(hardware=hardware, runtime={**SHORT, **runtime})
    issue = refused(declared, platform=SMALL)
    assert issue.field == "runtime.offload.memory"
    assert said in issue.message


def test_a_rented_gpu_is_as_fast_as_its_link_where_layers_are_streamed() -> None:
    runtime = {**SHORT, "precision": "int8", "offload": {"memory": "20GiB"}}
    hardware = {**ON_GPU, "gpu": {"type": "L40S"}}
    plan = planned(spec(hardware=hardware, runtime=runtime), SEVENTY_BILLION)
    assert plan.offer is not None and plan.offload is not None
    assert plan.offer.decode_tokens_per_s == pytest.approx(
        31.5e9 / plan.offload.step_bytes, abs=0.1
    )
