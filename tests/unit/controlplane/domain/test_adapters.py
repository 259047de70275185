"""What adapters add to the memory that is planned for a replica."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.controlplane.domain import test_plan_places as places
from tests.unit.controlplane.domain.test_plan import FACTS, MACHINE, spec

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import Precision, SpecIssue
from tidegate_controlplane.domain.adapters import Update, Updates, adapter_bytes, loaded_bytes
from tidegate_controlplane.domain.gpus import MachineGpu
from tidegate_controlplane.domain.plan import Refusal, resolve
from tidegate_controlplane.domain.size import need

MIB = 1024**2
SMALL = (Update(rank=16, inputs=512, outputs=512),) * 32
LARGE = (Update(rank=64, inputs=512, outputs=512),) * 32
"""1 and 4 MiB in 2 bytes a value."""


def plan_of(*adapters: Updates, **runtime: object) -> ResolvedPlan:
    plan = resolve(spec(runtime=runtime), FACTS, MACHINE, adapters=adapters)
    assert isinstance(plan, ResolvedPlan), plan
    return plan


@pytest.mark.parametrize(
    ("precision", "on_gpu", "taken"),
    [
        (Precision.FP32, False, 4 * 3 * (100 + 50)),
        (Precision.FP32, True, 4 * 3 * (100 + 50)),
        (Precision.BF16, True, 2 * 3 * (100 + 50)),
        (Precision.BF16, False, 2 * (16 * 100 + 64 * 3)),
        (Precision.INT4, False, 2 * (16 * 100 + 64 * 3)),
    ],
)
def test_an_adapter_takes_its_factors_and_whole_panels_of_them_on_processors(
    precision: Precision, on_gpu: bool, taken: int
) -> None:
    assert adapter_bytes([Update(3, 100, 50)], precision, on_gpu=on_gpu) == taken


@pytest.mark.parametrize(
    ("precision", "on_gpu", "each_bytes"),
    [(Precision.FP32, False, 4), (Precision.INT8, False, 4), (Precision.INT8, True, 2)],
)
def test_of_a_divided_model_every_device_has_one_factor_whole(
    precision: Precision, on_gpu: bool, each_bytes: int
) -> None:
    outward, inward = Update(3, 100, 50, "q_proj"), Update(3, 100, 50, "o_proj")

    def taken(update: Update) -> int:
        return adapter_bytes([update], precision, on_gpu=on_gpu, devices=4)

    assert taken(outward) == each_bytes * 3 * (4 * 100 + 50)
    assert taken(inward) == each_bytes * 3 * (100 + 4 * 50)


def test_the_largest_that_may_be_in_memory_together_are_counted() -> None:
    def counted(most: int) -> float:
        return loaded_bytes([SMALL, LARGE, SMALL], most, Precision.BF16, on_gpu=True) / MIB

    assert [counted(most) for most in (1, 2, 3, 8)] == [4, 5, 6, 6]


def test_adapters_are_a_term_of_the_planned_memory() -> None:
    without, plan = plan_of(), plan_of(*[SMALL] * 12)
    assert (without.adapters_bytes, plan.adapters_bytes, plan.max_adapters) == (0, 8 * MIB, 8)
    assert plan.memory_bytes - without.memory_bytes == 8 * MIB
    assert (
        need(plan).replace(", adapters 8 MiB", "").split(" ", 2)[2]
        == (need(without).split(" ", 2)[2])
    )


def test_fewer_at_once_take_less() -> None:
    plan = plan_of(*[SMALL] * 12, max_adapters=3)
    assert (plan.adapters_bytes, plan.max_adapters) == (3 * MIB, 3)


def refused(bound: dict[str, str] | None, memory_bytes: int) -> SpecIssue:
    declared = spec(hardware=bound or {}, runtime={"max_sequences": 1})
    machine = replace(MACHINE, memory_bytes=memory_bytes)
    assert isinstance(resolve(declared, FACTS, machine), ResolvedPlan)
    refusal = resolve(declared, FACTS, machine, adapters=[LARGE] * 8)
    assert isinstance(refusal, Refusal)
    (issue,) = refusal.issues
    return issue


@pytest.mark.parametrize(
    ("bound", "memory_bytes", "field"),
    [
        (None, 140 * MIB, "model.source"),
        ({"memory": "140MiB"}, 16 * 1024 * MIB, "hardware.memory"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_with_what_to_do(
    bound: dict[str, str] | None, memory_bytes: int, field: str
) -> None:
    issue = refused(bound, memory_bytes)
    assert issue.field == field
    assert "adapters 32 MiB" in issue.message
    assert "load fewer adapters at once (runtime.max_adapters), train them with a lower rank" in (
        issue.message
    )


SHORT = {"precision": "bf16", "context_tokens": 8192}
HUGE = (Update(rank=256, inputs=8192, outputs=8192),) * 128
"""1 GiB in 2 bytes a value."""


def on_gpu(*adapters: Updates, **runtime: object) -> ResolvedPlan | Refusal:
    declared = places.spec(hardware=places.HERE, runtime={**SHORT, **runtime})
    return resolve(declared, places.EIGHT_BILLION, places.OWN, adapters=adapters)


def test_the_cache_of_a_gpu_fills_what_adapters_leave() -> None:
    without, plan = on_gpu(), on_gpu(HUGE, HUGE)
    assert isinstance(without, ResolvedPlan) and isinstance(plan, ResolvedPlan)
    assert plan.memory_bytes == without.memory_bytes
    assert without.kv_cache_bytes - plan.kv_cache_bytes == plan.adapters_bytes == 2 * 1024 * MIB


def test_the_adapters_of_a_divided_model_are_counted_on_each_of_its_gpus() -> None:
    four = replace(places.OWN, gpu=MachineGpu("NVIDIA L4", 24 * places.GIB, count=4))
    declared = places.spec(
        hardware={**places.HERE, "gpu": {"count": 4}},
        runtime={**SHORT, "adapters": {"a": "/a"}, "max_adapters": 1},
    )
    plan = resolve(declared, places.EIGHT_BILLION, four, adapters=[HUGE, HUGE])
    assert isinstance(plan, ResolvedPlan)
    assert plan.adapters_bytes == (4 + 1) * 512 * MIB


@pytest.mark.parametrize("runtime", [{}, {"context_tokens": 1024, "offload": {"memory": "1GiB"}}])
def test_what_to_do_about_adapters_is_said_of_a_gpu_and_of_streamed_layers_too(
    runtime: dict[str, object],
) -> None:
    refusal = on_gpu(*[HUGE] * 8, **runtime)
    assert isinstance(refusal, Refusal)
    assert "load fewer adapters at once (runtime.max_adapters)" in refusal.issues[0].message
