"""The roofline: how fast this machine could run a workload if nothing but it stood in the way.

Every step takes at least as long as its multiplications at the measured GEMM rate and as reading
its weights and its keys and values once at the measured bandwidth, whichever is longer (Williams,
Waterman and Patterson, "Roofline", CACM 2009).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rows import Row
from benchmarks.workloads import Generation

SYSTEM = "bound"
OF_BOUND = "_of_bound"
"""Ends the name of the workload under which a figure's share of its bound is kept."""
PRECISIONS = ("int4", "int8", "bf16")
WEIGHT_BYTES = {"int4": 0.5, "int8": 1.0, "bf16": 2.0}
"""Per weight, without scales."""
CACHE_BYTES = {"int4": 1.0, "int8": 1.0, "bf16": 2.0}
"""Per key or value: the smallest cache that a system of this precision would keep."""
ARITHMETIC = {
    "int4": ("int8", "bf16", "fp32"),
    "int8": ("int8", "bf16", "fp32"),
    "bf16": ("bf16", "fp32"),
}
"""What weights of a precision can be multiplied in: the fastest counts, which on a processor with
slow bf16 instructions is fp32 even for bf16 weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of the Llama family."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def body_weights(self) -> int:
        """In the linear layers of all blocks; every token passes them."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_weights(self) -> int:
        """In the output layer; only a token whose successor is wanted passes it."""
        return self.hidden * self.vocabulary

    def weight_bytes(self, precision: str) -> float:
        """Read at every step."""
        return (self.body_weights + self.head_weights) * WEIGHT_BYTES[precision]


@dataclass(frozen=True)
class Machine:
    """What was measured on the machine itself."""

    read_bytes_per_s: Mapping[str, float]
    """By precision: reading again and again as many bytes as the weights have in it."""
    operations_per_s: Mapping[str, float]
    """Multiplications and additions of a large GEMM, by the type that is multiplied."""

    def best_of(self, other: Machine) -> Machine:
        """The higher of every figure: a bound is what was reached at any time."""
        return Machine(
            _higher(self.read_bytes_per_s, other.read_bytes_per_s),
            _higher(self.operations_per_s, other.operations_per_s),
        )


def prefill_s(shape: Shape, machine: Machine, precision: str, work: Generation) -> float:
    """The least time until the first token of every prompt."""
    tokens = work.streams * work.prompt_tokens
    pairs = tokens * (work.prompt_tokens + 1) / 2
    operations = 2 * (tokens * shape.body_weights + work.streams * shape.head_weights)
    return _step_s(
        machine,
        precision,
        operations + pairs * _pair_operations(shape),
        shape.weight_bytes(precision),
    )


def decode_s(shape: Shape, machine: Machine, precision: str, work: Generation) -> float:
    """The least time from the first token of every prompt to the last."""
    return sum(
        _step_s(
            machine,
            precision,
            work.streams
            * (
                2 * (shape.body_weights + shape.head_weights)
                + (work.prompt_tokens + step) * _pair_operations(shape)
            ),
            shape.weight_bytes(precision)
            + work.streams * (work.prompt_tokens + step) * _cached_bytes(shape, precision),
        )
        for step in range(1, work.max_tokens)
    )


def bound(shape: Shape, machine: Machine, precision: str, work: Generation) -> float:
    """The best value of the workload's metric, in its unit."""
    prefill = prefill_s(shape, machine, precision, work)
    if work.metric == "time_to_first_token":
        return prefill
    if work.metric == "prefill":
        return work.prompt_tokens / prefill
    decode = decode_s(shape, machine, precision, work)
    if work.metric == "decode":
        return (work.max_tokens - 1) / decode
    return work.streams * work.max_tokens / (prefill + decode)


def fraction(value: float, best: float, unit: str) -> float:
    """How much of its bound a figure reaches: 1 is all of it, for rates and for times."""
    return best / value if unit == "s" else value / best


def bound_rows(shape: Shape, machine: Machine, works: Sequence[Generation]) -> list[Row]:
    """What was measured of the machine, and what follows from it for each workload."""
    read = machine.read_bytes_per_s.items()
    rows = [Row(SYSTEM, "memory_read", "bandwidth", rate / 1e9, "GB/s", of) for of, rate in read]
    rate_of = machine.operations_per_s.items()
    rows += [Row(SYSTEM, "gemm", "rate", rate / 1e9, "GFLOP/s", of) for of, rate in rate_of]
    for precision in PRECISIONS:
        for work in works:
            best = bound(shape, machine, precision, work)
            rows.append(Row(SYSTEM, work.name, work.metric, best, work.unit, precision))
    return rows


def share_rows(
    rows: Sequence[Row], bounds: Sequence[Row], bound_by: Mapping[str, str]
) -> list[Row]:
    """Every figure that has a bound as a share of it, under a workload name of its own.

    `bound_by` tells the precision whose bound counts for a system.
    """
    best = {(row.workload, row.metric, row.precision): row.value for row in bounds}
    shares = []
    for row in rows:
        limit = best.get((row.workload, row.metric, bound_by[row.system]))
        if limit is not None:
            share = fraction(row.value, limit, row.unit)
            name = row.workload + OF_BOUND
            shares.append(Row(row.system, name, "fraction", share, "1", row.precision))
    return shares


def _step_s(machine: Machine, precision: str, operations: float, read_bytes: float) -> float:
    return max(
        operations / max(machine.operations_per_s[each] for each in ARITHMETIC[precision]),
        read_bytes / machine.read_bytes_per_s[precision],
    )


def _higher(some: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {name: max(value, others[name]) for name, value in some.items()}


def _pair_operations(shape: Shape) -> int:
    """Of a query with one key and its value, over all layers."""
    return 4 * shape.layers * shape.heads * shape.head_dim


def _cached_bytes(shape: Shape, precision: str) -> float:
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * CACHE_BYTES[precision]
