"""Which machine a replica is given, and why not another."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from tidegate.offers import Covers, Gpu, MigSlice, Offer
from tidegate.spec import GpuSpec, Precision
from tidegate_controlplane.domain.no_offer import why_none
from tidegate_controlplane.domain.offers import (
    Need,
    decode_bound,
    rank,
    usable,
    usd_per_million_tokens,
)

GIB = 1024**3
SMALL = Gpu(name="L4", memory_bytes=24 * GIB, compute_capability="8.9", bandwidth_bytes_per_s=300e9)
OLD = Gpu(name="T4", memory_bytes=16 * GIB, compute_capability="7.5")
LARGE = Gpu(
    name="A100-40GB",
    memory_bytes=40 * GIB,
    compute_capability="8.0",
    bandwidth_bytes_per_s=1600e9,
    slices=(
        MigSlice(profile="1g.5gb", memory_share=0.125, count=7),
        MigSlice(profile="2g.10gb", memory_share=0.25, count=3),
    ),
)


def offer(name: str, usd: float, gpu: Gpu | None = None, gpus: int = 1, **more: Any) -> Offer:
    fields = {
        "covers": Covers.SAGEMAKER,
        "region": "us-east-1",
        "vcpus": 4,
        "memory_bytes": 16 * GIB,
    }
    return Offer(
        instance_type=name,
        usd_per_hour=usd,
        gpu=gpu,
        gpus=gpus if gpu else 0,
        hardware_source="a data sheet (2026-01-01)",
        source="a price list",
        as_of=date(2026, 1, 1),
        **{**fields, **more},
    )


CPU, CHEAP = offer("cpu", 0.2), offer("t4", 0.5, OLD)
ONE, FOUR = offer("l4", 1.0, SMALL), offer("4xl4", 5.0, SMALL, 4, vcpus=48)
EIGHT = offer("8xa100", 20.0, LARGE, 8, vcpus=96)
NEED = Need(
    memory_bytes=10 * GIB,
    precision=Precision.INT8,
    gpu=GpuSpec(),
    covers=Covers.SAGEMAKER,
    region="us-east-1",
)
ALL = (EIGHT, FOUR, ONE, CHEAP, CPU)


def types(need: Need, *offers: Offer) -> list[str]:
    return [fit.offer.instance_type for fit in rank(need, offers or ALL).fits]


def reason(need: Need, name: str) -> str:
    return next(m.reason for m in rank(need, ALL).misfits if m.offer.instance_type == name)


def test_the_cheapest_that_fits_comes_first() -> None:
    assert types(NEED) == ["l4", "4xl4", "8xa100"]


def test_a_tenth_of_a_gpus_memory_is_left_to_others_than_weights_and_cache() -> None:
    room = usable(SMALL.memory_bytes)
    assert room == int(24 * GIB * 0.9)
    assert types(replace(NEED, memory_bytes=room), ONE) == ["l4"]
    assert types(replace(NEED, memory_bytes=room + 1), ONE) == []


def test_without_a_wish_for_gpus_only_machines_without_any_are_taken() -> None:
    alone = replace(NEED, gpu=None)
    assert types(alone) == ["cpu"]
    assert reason(alone, "l4") == "it has GPUs, and none is asked for"
    assert reason(NEED, "cpu") == "it has no GPU"


def test_a_place_and_a_kind_of_price_are_never_mixed_up() -> None:
    elsewhere = offer("far", 0.1, SMALL, region="eu-west-1")
    machine = offer("bare", 0.1, SMALL, covers=Covers.EC2)
    ranking = rank(NEED, (elsewhere, machine, ONE))
    assert [fit.offer for fit in ranking.fits] == [ONE] and not ranking.misfits


def test_packed_weights_want_a_gpu_that_multiplies_bf16() -> None:
    assert "needs compute capability 8.0, and T4 has 7.5" in reason(NEED, "t4")
    assert types(replace(NEED, precision=Precision.FP32), CHEAP) == ["t4"]


def test_fp8_wants_a_gpu_that_computes_it() -> None:
    fp8 = replace(NEED, precision=Precision.FP8)
    assert types(fp8) == ["l4", "4xl4"]
    assert reason(fp8, "8xa100") == "fp8 needs compute capability 8.9, and A100-40GB has 8.0"


def test_a_type_that_is_asked_for_is_the_only_one_taken() -> None:
    asked = replace(NEED, gpu=GpuSpec(type="A100"))
    assert types(asked) == ["8xa100"]
    assert reason(asked, "l4") == "its GPUs are L4, not A100"


def test_several_gpus_of_one_replica_add_up() -> None:
    two = replace(NEED, gpu=GpuSpec(count=2), memory_bytes=40 * GIB)
    first = rank(two, ALL).fits[0]
    assert (first.offer, first.each, first.bandwidth_bytes_per_s) == (FOUR, 2, 600e9)
    assert reason(two, "l4") == "it has 1 of the 2 GPUs that one replica is to have"


def test_what_is_paid_for_the_replicas_always_there_decides() -> None:
    crowd = replace(NEED, replicas=6)
    assert types(crowd) == ["l4", "4xl4", "8xa100"]
    assert [fit.machines for fit in rank(crowd, ALL).fits] == [6, 2, 1]
    assert types(replace(NEED, replicas=4), replace_price(FOUR, 3.9), ONE) == ["4xl4", "l4"]


def replace_price(former: Offer, usd: float) -> Offer:
    return former.model_copy(update={"usd_per_hour": usd})


def test_slices_are_taken_where_gpus_may_be_divided_and_only_there() -> None:
    small = replace(NEED, memory_bytes=8 * GIB, replicas=20)
    whole = rank(small, [EIGHT]).fits[0]
    assert (whole.slice, whole.each, whole.machines) == (None, 8, 3)
    divided = replace(small, covers=Covers.EC2)
    bare = EIGHT.model_copy(update={"covers": Covers.EC2})
    sliced = rank(divided, [bare]).fits[0]
    assert sliced.slice is not None and sliced.slice.profile == "2g.10gb"
    assert (sliced.each, sliced.machines) == (24, 1)
    assert sliced.bandwidth_bytes_per_s == 400e9
    assert sliced.usable_bytes == 9 * GIB


def test_a_replica_that_needs_a_whole_gpu_gets_no_slice() -> None:
    bare = EIGHT.model_copy(update={"covers": Covers.EC2})
    fit = rank(replace(NEED, covers=Covers.EC2, memory_bytes=30 * GIB), [bare]).fits[0]
    assert (fit.slice, fit.each) == (None, 8)


def test_threads_bound_what_one_machine_holds() -> None:
    busy = replace(NEED, threads=16)
    assert reason(busy, "l4") == "it has 4 vCPUs for the 16 threads of one replica"
    assert [fit.each for fit in rank(busy, [FOUR]).fits] == [3]


def test_weights_pass_through_the_machines_own_memory() -> None:
    heavy = replace(NEED, host_bytes=15 * GIB)
    assert "weights pass through 15.0 GiB" in reason(heavy, "l4")
    roomy = FOUR.model_copy(update={"memory_bytes": 40 * GIB})
    assert [fit.each for fit in rank(heavy, [roomy]).fits] == [2]


def test_spot_is_judged_by_its_own_price_and_only_where_it_is_known() -> None:
    spot = replace(NEED, spot=True)
    known = FOUR.model_copy(update={"spot_usd_per_hour": 0.9})
    ranking = rank(spot, (ONE, known))
    assert [(fit.offer, fit.usd_per_hour) for fit in ranking.fits] == [(known, 0.9)]
    assert ranking.misfits[0].reason.startswith(
        "no spot price of it is known; run: tidegate offers"
    )


def test_what_fits_nothing_is_told_the_need_the_largest_offer_and_what_to_do() -> None:
    huge = replace(NEED, memory_bytes=90 * GIB)
    said = why_none(huge, "90.0 GiB (weights …)", rank(huge, ALL).misfits, gpus_at_most=8)
    assert said == (
        "one replica needs 90.0 GiB (weights …) on 1 GPU, and no offer for sagemaker in us-east-1 "
        "fits; the largest is 8xa100: one replica can use 36.0 GiB (90% of 1 x A100-40GB), less "
        "than 90.0 GiB; use a lower runtime.precision, such as int4, lower runtime.context_tokens "
        "or runtime.kv_cache, give a replica more GPUs (hardware.gpu.count), or use a smaller model"
    )


@pytest.mark.parametrize(
    ("need", "offers", "remedy"),
    [
        (replace(NEED, gpu=GpuSpec(type="H900")), ALL, "use one of A100-40GB, L4, T4"),
        (NEED, (), "run: tidegate offers refresh --region us-east-1"),
        (replace(NEED, gpu=None), (ONE, FOUR), "ask for one: hardware.gpu.count: 1"),
        (replace(NEED, gpu=None, memory_bytes=90 * GIB), ALL, "ask for a GPU (hardware.gpu)"),
    ],
)
def test_each_kind_of_shortage_has_its_own_remedy(
    need: Need, offers: tuple[Offer, ...], remedy: str
) -> None:
    assert remedy in why_none(need, "…", rank(need, offers).misfits, gpus_at_most=1)


def test_more_gpus_are_no_remedy_where_a_model_is_not_divided() -> None:
    huge = replace(NEED, memory_bytes=90 * GIB)
    assert "more GPUs" not in why_none(huge, "…", rank(huge, ALL).misfits, gpus_at_most=1)


def test_decoding_is_bounded_by_reading_the_weights_and_its_price_by_that() -> None:
    fit = rank(NEED, ALL).fits[0]
    assert decode_bound(fit, 3_000_000_000) == pytest.approx(100.0)
    assert usd_per_million_tokens(fit, 100.0) == pytest.approx(1.0 / 0.36)
    half = replace(fit, each=2)
    assert usd_per_million_tokens(half, 100.0) == pytest.approx(0.5 / 0.36)
