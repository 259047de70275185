"""Template processes that start at once: forked by one that has imported Jinja already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

import tidegate_runtime
from tidegate_runtime.chat.process import RenderProcess, clean_environment, spawn
from tidegate_runtime.chat.render_forks import PACKET_BYTES
from tidegate_runtime.chat.render_process import Limits

log = logging.getLogger(__name__)

_ANSWERS_WITHIN_S = 10.0
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from tidegate_runtime.chat.render_forks import main; main(int(sys.argv[2]))"
)


class ForkServer:
    """A process that forks template processes for a zygote's replicas, which inherit this object.

    It knows as little as they do: its environment is clean, and it is told nothing of the replicas.
    It ends when the zygote and all of them have. Any process and thread that has it may call.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        roots = str(Path(tidegate_runtime.__path__[0]).parent)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, roots, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=clean_environment(),
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def start(self, limits: Limits) -> RenderProcess:
        """A new process, each of whose renderings is bounded; spawned where this one is gone."""
        try:
            return self._fork(limits)
        except OSError as error:
            log.warning("a template process is spawned, as none could be forked: %s", error)
            return spawn(limits)

    def close(self) -> None:
        """End it, once every other process that has this object has closed it too, or ended."""
        self._control.close()
        self._process.wait()

    def _fork(self, limits: Limits) -> ForkedProcess:
        reads, stdin = os.pipe()
        stdout, writes = os.pipe()
        told, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = [reads, writes, tells.fileno()]
        process = ForkedProcess(os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb"), told)
        try:
            socket.send_fds(self._control, [" ".join(map(str, limits)).encode()], given)
        except OSError:
            process.close()
            raise
        finally:
            os.close(reads)
            os.close(writes)
            tells.close()
        process.meet()
        return process


class ForkedProcess:
    """Implements `RenderProcess` for the child of another process."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], told: socket.socket) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.pid = 0
        self._told = told
        self._handle: int | None = None
        self._status: int | None = None

    def meet(self) -> None:
        """Wait until it is there. Raises OSError when it will not be."""
        self._told.settimeout(_ANSWERS_WITHIN_S)
        try:
            said, handles, _, _ = socket.recv_fds(self._told, PACKET_BYTES, 1)
            if not handles:
                raise ConnectionResetError("the fork server ended")
        except OSError:
            self.close()
            raise
        self.pid, self._handle = int(said), handles[0]

    def kill(self) -> None:
        """End it now."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended, a signal's number negated.

        Raises subprocess.TimeoutExpired.
        """
        if self._status is None:
            self._told.settimeout(timeout)
            try:
                said = self._told.recv(PACKET_BYTES)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from error
            # Nobody says so when the fork server was killed first.
            self._status = int(said) if said else -signal.SIGKILL
            if not said:
                self.kill()
            self._let_go()
        return self._status

    def close(self) -> None:
        """Hang up, after which it ends by itself."""
        self.stdin.close()
        self.stdout.close()
        self._let_go()

    def _let_go(self) -> None:
        self._told.close()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
