"""The contract of what makes replica processes, and the plain way: start a program for each."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tidegate.protocol.replica import TOKEN_VARIABLE
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.provision.child import ChildProcess

RUNTIME = (sys.executable, "-m", "tidegate_runtime.server")


class OutOfCapacity(StartFailed):
    """The machine has no memory, or no process, to spare for another replica now."""


def start_failure(what: str, error: OSError) -> StartFailed:
    """What to raise when `what` cannot be done."""
    spent = error.errno in (errno.EAGAIN, errno.ENOMEM)
    return (OutOfCapacity if spent else StartFailed)(f"cannot {what}: {error}")


class Starter(Protocol):
    """Makes processes that follow `tidegate.protocol.replica`, children of this one."""

    async def start(
        self, config: Path, log: Path, token: str, on_exit: Callable[[], None]
    ) -> ChildProcess:
        """A new replica process. Raises StartFailed, OutOfCapacity."""
        ...

    def warm(self, config: Path, model: str) -> None:
        """The next replica of a configuration's model should start sooner, if that can be had.

        `model` names it, whichever replica's configuration it is.
        """
        ...

    async def close(self) -> None:
        """Let go of everything but the processes that were made."""
        ...


class SpawningStarter:
    """Implements `Starter` by starting `command` anew each time."""

    def __init__(
        self, command: Sequence[str] = RUNTIME, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` goes over that of this process."""
        self._command = command
        self._environment = environment or {}

    async def start(
        self, config: Path, log: Path, token: str, on_exit: Callable[[], None]
    ) -> ChildProcess:
        arguments = [*self._command, "--config", str(config)]
        try:
            pid = spawn(arguments, log, {**self._environment, TOKEN_VARIABLE: token})
            return ChildProcess(pid, on_exit)
        except OSError as error:
            raise start_failure("start a replica process", error) from error

    def warm(self, config: Path, model: str) -> None:
        del config, model

    async def close(self) -> None:
        """There is nothing to let go of."""


def spawn(
    arguments: Sequence[str], log: Path, environment: dict[str, str], keep: Sequence[int] = ()
) -> int:
    """Start a program in a session of its own, its output appended to `log`; returns its pid.

    It inherits this environment with `environment` over it, and the descriptors in `keep`. Call it
    on the main thread: the kernel ties a child's life to the thread that started it. Raises
    OSError.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawn(
            arguments[0],
            list(arguments),
            {**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                # A descriptor that is copied onto itself loses its close-on-exec mark.
                *((os.POSIX_SPAWN_DUP2, number, number) for number in keep),
            ],
            setsid=True,
        )
    finally:
        os.close(output)
