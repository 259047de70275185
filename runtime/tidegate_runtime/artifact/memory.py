"""How much memory this process may still take: the machine's and the cgroup's word, the lower."""

from __future__ import annotations

import os
from pathlib import Path

from tidegate_runtime.errors import ReplicaUnavailable

_CGROUP = Path("/sys/fs/cgroup")
_GIB = 1 << 30


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Bytes that can be allocated now without swapping, also inside a container (cgroup v2)."""
    free = _meminfo_available(meminfo.read_text())
    limit = _number(cgroup / "memory.max")
    used = _number(cgroup / "memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used))


def check_weights_fit(root: Path) -> None:
    """Refuse a directory of weights larger than the memory left, as `check_bytes_fit` does."""
    check_bytes_fit(str(root), sum(path.stat().st_size for path in root.glob("*.safetensors")))


def check_bytes_fit(model: str, needed: int) -> None:
    """Refuse weights larger than the memory left. Raises ReplicaUnavailable (OutOfMemory): others
    may give theirs back."""
    free = available_bytes()
    if needed > free:
        raise ReplicaUnavailable(
            "OutOfMemory",
            f"the weights in {model!r} take {needed / _GIB:.1f} GiB and only "
            f"{free / _GIB:.1f} GiB of memory are free; use a smaller model or a larger machine",
        )


def resident_bytes() -> int:
    """What this process holds in memory now, shared pages included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _meminfo_available(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable line; Linux 3.14 or newer is needed")


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
