from dataclasses import replace

import pytest
from benchmarks.bound import (
    Machine,
    Shape,
    bound,
    bound_rows,
    decode_s,
    fraction,
    prefill_s,
    share_rows,
)
from benchmarks.rows import Row
from benchmarks.workloads import DECODE_1, GENERATIONS, PREFILL_1024, THROUGHPUT_32, TTFT

SMOLLM2 = Shape(
    layers=30,
    hidden=576,
    intermediate=1536,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
)
READ = {"int4": 40e9, "int8": 40e9, "bf16": 40e9}
MACHINE = Machine(READ, {"fp32": 150e9, "bf16": 400e9, "int8": 900e9})


def test_the_weights_of_smollm2_are_counted_as_they_are_read() -> None:
    assert SMOLLM2.weight_bytes("bf16") == pytest.approx(269e6, rel=0.01)
    assert SMOLLM2.weight_bytes("int4") * 4 == SMOLLM2.weight_bytes("bf16")


def test_one_stream_is_bounded_by_reading_the_weights_and_the_cache() -> None:
    best = bound(SMOLLM2, MACHINE, "bf16", DECODE_1)
    weights_alone = 40e9 / SMOLLM2.weight_bytes("bf16")
    assert 0.95 * weights_alone < best < weights_alone


def test_twice_the_bandwidth_is_twice_the_bound_of_one_stream() -> None:
    faster = replace(MACHINE, read_bytes_per_s={each: 2 * READ[each] for each in READ})
    once, twice = (bound(SMOLLM2, each, "int8", DECODE_1) for each in (MACHINE, faster))
    assert twice == pytest.approx(2 * once)


def test_a_long_prompt_is_bounded_by_arithmetic() -> None:
    seconds = prefill_s(SMOLLM2, MACHINE, "bf16", PREFILL_1024)
    assert seconds == pytest.approx(
        (2 * 1024 * SMOLLM2.body_weights + 2 * SMOLLM2.head_weights + 1024 * 1025 / 2 * 69120)
        / 400e9
    )
    assert bound(SMOLLM2, MACHINE, "bf16", PREFILL_1024) == pytest.approx(1024 / seconds)


def test_throughput_counts_the_prefill_too() -> None:
    seconds = prefill_s(SMOLLM2, MACHINE, "int8", THROUGHPUT_32)
    seconds += decode_s(SMOLLM2, MACHINE, "int8", THROUGHPUT_32)
    assert bound(SMOLLM2, MACHINE, "int8", THROUGHPUT_32) == pytest.approx(32 * 128 / seconds)


def test_the_bound_of_the_first_token_is_a_time() -> None:
    expected = prefill_s(SMOLLM2, MACHINE, "int4", TTFT)
    assert bound(SMOLLM2, MACHINE, "int4", TTFT) == expected


def test_bf16_weights_may_be_multiplied_in_fp32_where_that_is_faster() -> None:
    slow_bf16 = replace(MACHINE, operations_per_s={"fp32": 300e9, "bf16": 150e9, "int8": 900e9})
    as_fp32 = replace(MACHINE, operations_per_s={"fp32": 300e9, "bf16": 300e9, "int8": 900e9})
    found = (bound(SMOLLM2, each, "bf16", PREFILL_1024) for each in (slow_bf16, as_fp32))
    assert next(found) == next(found)


def test_a_time_and_a_rate_that_reach_half_of_their_bound_are_both_one_half() -> None:
    assert fraction(50.0, 100.0, "tok/s") == 0.5
    assert fraction(2.0, 1.0, "s") == 0.5


def test_of_two_measurements_of_the_machine_the_higher_counts_figure_by_figure() -> None:
    some = Machine({"int4": 1.0}, {"int8": 5.0})
    others = Machine({"int4": 2.0}, {"int8": 4.0})
    assert some.best_of(others) == Machine({"int4": 2.0}, {"int8": 5.0})


def test_there_is_a_bound_for_every_workload_and_precision_and_for_the_machine_itself() -> None:
    rows = bound_rows(SMOLLM2, MACHINE, GENERATIONS)
    assert {row.system for row in rows} == {"bound"}
    found = {(row.workload, row.precision) for row in rows}
    assert {("gemm", "fp32"), ("gemm", "bf16"), ("gemm", "int8"), ("memory_read", "int4")} <= found
    precisions = ("int4", "int8", "bf16")
    assert {(work.name, each) for work in GENERATIONS for each in precisions} <= found
    (read,) = [row for row in rows if (row.workload, row.precision) == ("memory_read", "bf16")]
    assert (read.value, read.unit) == (40.0, "GB/s")


def test_a_share_has_a_workload_name_of_its_own_and_the_bound_of_its_systems_precision() -> None:
    bounds = bound_rows(SMOLLM2, MACHINE, GENERATIONS)
    best = bound(SMOLLM2, MACHINE, "int4", DECODE_1)
    rows = [
        Row("llama.cpp", "decode_1", "decode", best / 4, "tok/s", "q4_1"),
        Row("llama.cpp", "ready", "start", 0.3, "s", "q4_1"),
    ]
    (share,) = share_rows(rows, bounds, {"llama.cpp": "int4"})
    assert share == Row("llama.cpp", "decode_1_of_bound", "fraction", 0.25, "1", "q4_1")
