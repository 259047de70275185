"""What a template process is to the one that asks it, and how one is spawned."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO, Protocol

from tidegate_runtime.chat import render_process
from tidegate_runtime.chat.render_process import Limits

_KEPT = ("LD_LIBRARY_PATH", "TZ")


class RenderProcess(Protocol):
    """What is used of a `subprocess.Popen` that runs `render_process`."""

    pid: int

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where requests go."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Where replies come from."""

    def kill(self) -> None:
        """End it now."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended, a signal's number negated.

        Raises subprocess.TimeoutExpired.
        """


def spawn(limits: Limits) -> RenderProcess:
    """A new process, each of whose renderings is bounded by `limits`. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-I", render_process.__file__, *map(str, limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )


def clean_environment() -> dict[str, str]:
    """A template is shown nothing of what this process was told."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}
