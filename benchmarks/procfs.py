"""What Linux tells of a process with its children, and of the time that others took meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU since the start: of a process tree, and of the whole machine."""

    own_s: float
    machine_s: float

    def taken_by_others(self, later: CpuTime) -> float:
        """Seconds that went to anybody else between the two readings."""
        own = later.own_s - self.own_s
        return max(0.0, later.machine_s - self.machine_s - own)


def tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it; those that end meanwhile are left out."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for thread in threads for child in _words(thread / "children")]
    except OSError:
        return
    for child in children:
        yield from tree(int(child))


def peak_bytes(pid: int) -> int:
    """The largest resident sizes of a process and its children, added up."""
    return sum(_peak_bytes(each) for each in tree(pid))


def cpu_time(pid: int) -> CpuTime:
    """For a process with its living children."""
    own = sum(_ticks(each) for each in tree(pid))
    _, user, nice, system, _, _, irq, softirq, *_ = _first_line(Path("/proc/stat")).split()
    machine = sum(map(int, (user, nice, system, irq, softirq)))
    return CpuTime(own / _TICKS, machine / _TICKS)


def _ticks(pid: int) -> int:
    try:
        fields = _first_line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0]
