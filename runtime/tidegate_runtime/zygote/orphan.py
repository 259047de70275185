"""Fork a process that becomes the child of someone above."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

_PID_BYTES = 8
_ADOPTED_WITHIN_S = 5.0
_NO_LEAVE = 1
"""The exit status of a process that was never to begin."""


@dataclass(frozen=True)
class Orphan:
    """A process that waits for leave to begin, and ends without it when this process does."""

    pid: int
    leave: int
    """The only descriptor that its leave can be written to."""

    def begin(self) -> None:
        """Give it leave. Once."""
        with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile
            os.write(self.leave, b"!")
        os.close(self.leave)


def fork_orphan(run: Callable[[], int], parent_pid: int) -> Orphan:
    """A new process that is a child of `parent_pid` and runs `run` when it is told to begin.

    `parent_pid` is an ancestor that declared itself a subreaper. The new process ends with the
    status that `run` returns. Raises OSError when the machine has no room for another process.
    """
    told, leave = os.pipe()

    def run_with_leave() -> int:
        os.close(leave)  # else the pipe would not end with the process that may write to it
        said = os.read(told, 1)
        os.close(told)
        return run() if said else _NO_LEAVE

    try:
        return Orphan(_fork_twice(run_with_leave, parent_pid), leave)
    except OSError:
        os.close(leave)
        raise
    finally:
        os.close(told)


def _fork_twice(run: Callable[[], int], parent_pid: int) -> int:
    """The pid of an orphan that runs `run`."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(reader)
        _middle(run, parent_pid, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read(_PID_BYTES)
    os.waitpid(middle, 0)
    pid = int.from_bytes(said, "little")
    if pid == 0:
        raise OSError(errno.EAGAIN, "no process could be forked")
    return pid


def _middle(run: Callable[[], int], parent_pid: int, writer: int) -> NoReturn:
    """Fork once more and end, so that the new process is an orphan."""
    try:
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            _orphan(run, parent_pid)
        os.write(writer, pid.to_bytes(_PID_BYTES, "little"))
    finally:
        os._exit(0)


def _orphan(run: Callable[[], int], parent_pid: int) -> NoReturn:
    code = 1
    try:
        give_up = time.monotonic() + _ADOPTED_WITHIN_S
        while os.getppid() != parent_pid and time.monotonic() < give_up:
            time.sleep(0.0005)
        code = run()
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not return into the loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
