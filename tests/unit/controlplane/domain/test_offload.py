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
LAYER = layer_bytes(EIGHT_BILLION, Precision.INT8)


def streamed(**runtime: Any) -> Any:
    return spec(hardware=LOCAL, runtime={**SHORT, "offload": {}, **runtime})


def test_weights_that_fit_are_not_streamed() -> None:
    large = replace(PLATFORM, memory_bytes=16 * GIB)
    assert planned(streamed(), platform=large).offload is None
    assert planned(streamed(offload={"memory": "16GiB"}), platform=large).offload is None


def test_a_model_that_is_too_large_for_the_machine_points_to_streaming() -> None:
    whole = spec(hardware=LOCAL, runtime=SHORT)
    assert "runtime.offload: {}" in refused(whole, platform=SMALL).message


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
        (ON_GPU, {"offload": {}}, "the machine is not chosen yet; say how much"),
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
