"""What this machine has, and what the platform on it can therefore promise."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from tidegate.spec import Precision
from tidegate_controlplane.domain.plan import LOCAL, Capabilities

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
PLATFORM_BYTES = 512 * 1024 * 1024
"""What replicas cannot have: the control plane and the zygote, measured at 120 and 370 MiB."""


def capabilities(elsewhere: frozenset[str] = frozenset()) -> Capabilities:
    """This machine and the places `elsewhere`; precisions of this version, cores, and memory."""
    return Capabilities(
        provisioners=elsewhere | {LOCAL},
        precisions=frozenset({Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4}),
        memory_bytes=max(0, memory_bytes() - PLATFORM_BYTES),
        cores=len(os.sched_getaffinity(0)),
    )


def memory_bytes() -> int:
    """Total memory of the machine, or of the container around this process when that is less."""
    total = int(psutil.virtual_memory().total)
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total
