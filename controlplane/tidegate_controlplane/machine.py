"""What this machine has, and what the platform on it can therefore promise."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from tidegate.spec import Precision
from tidegate_controlplane.domain.capabilities import LOCAL, Capabilities
from tidegate_controlplane.domain.gpus import MachineGpu

logger = logging.getLogger(__name__)
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
TOOL_S = 10.0
MIB = 1024 * 1024
PLATFORM_BYTES = 512 * 1024 * 1024
"""What replicas cannot have: the control plane and the zygote, measured at 120 and 370 MiB."""


def capabilities(elsewhere: frozenset[str] = frozenset()) -> Capabilities:
    """This machine and the places `elsewhere`; precisions of this version, cores, and memory."""
    return Capabilities(
        provisioners=elsewhere | {LOCAL},
        precisions=frozenset({Precision.FP32, Precision.BF16, Precision.INT8, Precision.INT4}),
        memory_bytes=max(0, memory_bytes() - PLATFORM_BYTES),
        cores=len(os.sched_getaffinity(0)),
        gpu=own_gpu(),
    )


def own_gpu() -> MachineGpu | None:
    """The first NVIDIA GPU of this machine and how many are like it, as its driver's tool says.

    Blocks for a moment.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = (tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=TOOL_S, check=True)
        gpus = said.stdout.splitlines()
        name, mib = gpus[0].rsplit(",", 1)
        return MachineGpu(name.strip(), int(mib) * MIB, gpus.count(gpus[0]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        logger.warning("no GPU is used: %s does not name one: %s", tool, error)
        return None


def memory_bytes() -> int:
    """Total memory of the machine, or of the container around this process when that is less."""
    total = int(psutil.virtual_memory().total)
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total
