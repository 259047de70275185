"""Samples as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.rows import Row


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(system: str, workload: str, samples: Sequence[float], precision: str) -> list[Row]:
    """The median and the 99th percentile, in seconds."""
    return [
        Row(system, workload, metric, percentile(samples, share), "s", precision)
        for metric, share in (("p50", 0.5), ("p99", 0.99))
    ]
