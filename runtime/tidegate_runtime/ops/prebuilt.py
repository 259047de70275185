"""Kernels compiled ahead, for machines without a compiler; as a program it compiles them.

An image does not know the processor that it will run on, so it brings one library for each level of
x86-64 that the kernels have code for (x86-64 psABI, "Microarchitecture levels"), and the highest
that the processor has is taken. Other architectures compile on first use.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tidegate_runtime.ops import compiler

DIRECTORY = Path(__file__).parent / "built"


@dataclass(frozen=True)
class Level:
    """A processor by its instructions, as Linux calls them."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]

    @property
    def path(self) -> Path:
        """Its name tells the sources, so that what was built from others is never loaded."""
        return DIRECTORY / f"kernels-{self.name}-{compiler.sources_digest()[:24]}.so"


_V3 = frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = (
    Level("v4-vnni", ("-march=x86-64-v4", "-mavx512vnni"), _V4 | {"avx512_vnni"}),
    Level("v4", ("-march=x86-64-v4",), _V4),
    Level("v3", ("-march=x86-64-v3",), _V3),
)
"""The best first."""


def find(instructions: Collection[str]) -> Path | None:
    """The best library that is here for a processor with these instructions."""
    if not DIRECTORY.is_dir():
        return None
    had = set(instructions)
    return next(
        (level.path for level in LEVELS if level.needs <= had and level.path.is_file()), None
    )


def build_all() -> None:
    """Compile every level. Raises CompilerMissing."""
    if platform.machine() != "x86_64":
        raise compiler.CompilerMissing(
            f"machine {platform.machine()!r} has no levels; build on x86_64, or let the kernels be "
            "compiled on first use"
        )
    made_with = compiler.find_compiler()
    for level in LEVELS:
        compiler.build(made_with, level.path, level.flags)


if __name__ == "__main__":
    try:
        build_all()
    except compiler.CompilerMissing as failure:
        sys.exit(str(failure))
