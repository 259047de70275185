"""The kernels' shared library: compiled once for this machine, then kept.

Nothing but a C++ compiler is needed, and a build takes seconds. Where there is none, the models run
on torch's own operators instead (`models/open.py`), with the same tokens and less speed.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "native"
_FLAGS = (
    "-std=c++20",
    "-O3",
    # A product and a sum are fused only where the source says so: see `multiply_add`.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
    "-pthread",
)
_THIS_MACHINE = ("-march=native",)
_COMPILERS = ("g++", "clang++", "c++")
_TIMEOUT_S = 300


class CompilerMissing(Exception):
    """There is no C++ compiler, or it cannot build the kernels; the message says which and why."""


def library(cache_dir: Path | None = None) -> Path:
    """The compiled kernels for this machine, built unless they are kept. Raises CompilerMissing."""
    compiler = find_compiler()
    directory = cache_dir or default_cache_dir()
    path = directory / f"kernels-{_identity(compiler)}.so"
    if not path.exists():
        build(compiler, path, _THIS_MACHINE)
    return path


def find_compiler() -> str:
    """The path of a C++ compiler, the user's choice (`CXX`) first. Raises CompilerMissing."""
    wanted = os.environ.get("CXX", "").split()
    for name in (*wanted[:1], *_COMPILERS):
        if path := shutil.which(name):
            return path
    raise CompilerMissing(
        f"none of {', '.join(_COMPILERS)} is installed; install one (Debian: apt-get install g++) "
        "to run the fast kernels"
    )


def default_cache_dir() -> Path:
    """Where compiled kernels are kept, by the XDG base directory rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"


def build(compiler: str, path: Path, processor: Sequence[str]) -> None:
    """Compile for the processor that some flags name. Raises CompilerMissing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        built = Path(directory) / path.name
        command = [compiler, *_FLAGS, *processor, str(SOURCES / "kernels.cpp"), "-o", str(built)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerMissing(f"{compiler} did not build the kernels: {error}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise CompilerMissing(f"{compiler} did not build the kernels: {lines[0]}")
        # Several processes may build at once; each puts the same whole file in place.
        built.replace(path)
    log.info("built the kernels with %s into %s", compiler, path)


@functools.cache
def _identity(compiler: str) -> str:
    """A name for what the library depends on: sources, flags, compiler and processor."""
    digest = hashlib.sha256(sources_digest().encode())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False)
    digest.update(version.stdout)
    digest.update(_processor().encode())
    return digest.hexdigest()[:24]


def sources_digest() -> str:
    """A name for the sources and the flags that every processor gets."""
    digest = hashlib.sha256("\0".join(_FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """What tells processors with different instructions apart."""
    return platform.machine() + " ".join(instructions())


def instructions() -> tuple[str, ...]:
    """What the kernel calls the instructions of this processor; none where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return tuple(next(flags, "").partition(":")[2].split())
