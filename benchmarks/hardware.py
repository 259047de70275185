"""What a result must say of the machine and the versions it was measured with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""The instruction sets that decide how fast a linear layer can be."""


def hardware() -> dict[str, object]:
    """The processor, what of it this process may use, and its memory."""
    cpu = _fields(Path("/proc/cpuinfo"))
    memory = _fields(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
    flags = set(cpu.get("flags", "").split())
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [flag for flag in FLAGS if flag in flags],
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
    }


def versions(python: Path, packages: Iterable[str]) -> dict[str, str]:
    """Those packages that are installed for an interpreter, and the interpreter itself."""
    asked = (
        "import importlib.metadata as m, json, platform;"
        "print(json.dumps({'python': platform.python_version()}"
        f" | {{d.name: d.version for d in m.distributions() if d.name in {list(packages)!r}}}))"
    )
    done = subprocess.run([str(python), "-c", asked], check=True, text=True, capture_output=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _fields(path: Path) -> dict[str, str]:
    """The first `name : value` of every name."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found
