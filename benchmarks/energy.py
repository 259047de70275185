"""Joules from RAPL, where the machine counts them and lets this user read the counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """The energy of one processor package; it starts again from 0 at `wraps_at_uj`."""

    path: Path
    wraps_at_uj: int

    def read_uj(self) -> int:
        """Microjoules, since some moment."""
        return int((self.path / "energy_uj").read_text())


def counters(powercap: Path = POWERCAP) -> list[Counter]:
    """One for each package; empty where nothing is counted or nothing may be read."""
    found = []
    for path in sorted(powercap.glob("intel-rapl:?")):
        try:
            counter = Counter(path, int((path / "max_energy_range_uj").read_text()))
            counter.read_uj()
        except (OSError, ValueError):
            continue
        found.append(counter)
    return found


def joules(before_uj: int, after_uj: int, wraps_at_uj: int) -> float:
    """Between two readings of one counter, which may have started again once."""
    return (after_uj - before_uj) % wraps_at_uj / 1e6


class Meter:
    """Reads all counters at once. `available` is False on a machine that tells nothing."""

    def __init__(self, found: list[Counter]) -> None:
        self._counters = found

    @property
    def available(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._counters)

    def read(self) -> list[int]:
        """A reading of every counter."""
        return [counter.read_uj() for counter in self._counters]

    def joules_since(self, before: list[int]) -> float:
        """Used by all packages since a reading."""
        pairs = zip(self._counters, before, self.read(), strict=True)
        return sum(joules(old, new, counter.wraps_at_uj) for counter, old, new in pairs)
