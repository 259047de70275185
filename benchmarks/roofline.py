"""What this machine can read and multiply, with the best operator that torch has for it.

    python -m benchmarks.roofline --threads 2 --working-set int4=67000000

Prints one JSON object: bytes a second by working set, and operations a second by type.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

SIZE = 2048
"""Rows and columns of the matrices: large enough to be limited by arithmetic alone."""
ROW = 4096
READ_S = 1.0
GEMM_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--working-set", action="append", default=[], metavar="NAME=BYTES")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sizes = dict(pair.split("=") for pair in given.working_set)
    read = {name: read_bytes_per_s(int(size)) for name, size in sizes.items()}
    print(json.dumps({"read_bytes_per_s": read, "operations_per_s": operations_per_s()}))


@torch.inference_mode()
def read_bytes_per_s(size: int) -> float:
    """Reading `size` bytes over and over, as weights are read step after step."""
    matrix = torch.ones(max(1, size // (4 * ROW)), ROW)
    vector = torch.ones(ROW)
    flat, whole = matrix.flatten(), matrix.view(torch.int64)
    ways = (matrix.sum, whole.sum, lambda: matrix.mv(vector), lambda: flat.dot(flat))
    return matrix.numel() * 4 / min(_best_s(way, READ_S) for way in ways)


@torch.inference_mode()
def operations_per_s() -> dict[str, float]:
    """A square product of each type; int8 by the faster of torch's two ways."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    half, other = a.bfloat16(), b.bfloat16()
    ways: dict[str, list[Callable[[], object]]] = {
        "fp32": [lambda: a @ b],
        "bf16": [lambda: half @ other],
        "int8": _int8_ways(),
    }
    return {
        name: 2 * SIZE**3 / min(_best_s(way, GEMM_S) for way in found)
        for name, found in ways.items()
    }


def _int8_ways() -> list[Callable[[], object]]:
    signed = torch.randint(-128, 128, (SIZE, SIZE), dtype=torch.int8)
    weight = torch.randint(-128, 128, (SIZE, SIZE), dtype=torch.int8)
    rows = torch.randint(0, 256, (SIZE, SIZE), dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [SIZE, SIZE])
    scales, zeros = torch.ones(SIZE), torch.zeros(SIZE, dtype=torch.int64)

    def linear() -> object:
        return torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )

    return [lambda: torch._int_mm(signed, weight.t()), linear]


def _best_s(way: Callable[[], object], total_s: float) -> float:
    """The fastest of as many calls as fit: a bound is what was reached at all."""
    way()
    times = []
    end = time.perf_counter() + total_s
    while time.perf_counter() < end:
        began = time.perf_counter()
        way()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
