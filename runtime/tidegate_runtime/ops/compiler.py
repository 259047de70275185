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
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "native"
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    # A product and a sum are fused only where the source says so: see `multiply_add`.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
    "-pthread",
)
_COMPILERS = ("g++", "clang++", "c++")
_TIMEOUT_S = 300


class CompilerMissing(Exception):
    """There is no C++ compiler, or it cannot build the kernels; the message says which and why."""


def library(cache_dir: Path | None = None) -> Path:
    """The compiled kernels for this machine, built unless they are kept. Raises CompilerMissing."""
    compiler = find_compiler()
    if compiler is None:
        raise CompilerMissing(
            f"none of {', '.join(_COMPILERS)} is installed; install one (Debian: apt-get install "
            "g++) to run the fast kernels"
        )
    directory = cache_dir or default_cache_dir()
    path = directory / f"kernels-{_identity(compiler)}.so"
    if not path.exists():
        _build(compiler, path)
    return path


def find_compiler() -> str | None:
    """The path of a C++ compiler, the user's choice (`CXX`) first."""
    wanted = os.environ.get("CXX", "").split()
    return next((path for name in (*wanted[:1], *_COMPILERS) if (path := shutil.which(name))), None)


def default_cache_dir() -> Path:
    """Where compiled kernels are kept, by the XDG base directory rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"


def _build(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        built = Path(directory) / path.name
        command = [compiler, *_FLAGS, str(SOURCES / "kernels.cpp"), "-o", str(built)]
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
    digest = hashlib.sha256("\0".join(_FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False)
    digest.update(version.stdout)
    digest.update(_processor().encode())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What tells processors with different instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return platform.machine() + next(flags, "")
