"""The zygote's loop: one thread that reads commands and forks."""

from __future__ import annotations

import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tidegate.protocol.replica import TOKEN_VARIABLE
from tidegate.protocol.zygote import MESSAGE_BYTES, Command, Fork, Forked, Imported, Message, Warmed
from tidegate_runtime.zygote.orphan import fork_orphan

log = logging.getLogger(__name__)

EXIT_THREADED = 4
"""A library left a thread running; a forked copy could wait forever for a lock that it held."""
_ENDING_THREAD_S = 0.5


class Zygote:
    """Forks replicas that find everything imported, and their models warm."""

    def __init__(
        self,
        connection: socket.socket,
        parent_pid: int,
        serve_replica: Callable[[list[str]], int],
        warm: Callable[[Path], None],
    ) -> None:
        """`serve_replica` is what a forked process does with its command line; `warm` keeps ready
        what replicas of a configuration file read first.
        """
        self._connection = connection
        self._parent_pid = parent_pid
        self._serve_replica = serve_replica
        self._warm = warm

    def serve(self) -> int:
        """Until the other end is closed; returns the exit status."""
        _settle()
        self._send(Imported())
        while packet := self._connection.recv(MESSAGE_BYTES):
            command = Command.validate_json(packet)
            if isinstance(command, Fork):
                self._fork(command)
                continue
            self._warm(Path(command.config_path))
            if not _is_alone():
                log.error("a thread was left running; a new zygote takes over")
                return EXIT_THREADED
            _settle()
            self._send(Warmed(config_path=command.config_path))
        return 0

    def _fork(self, command: Fork) -> None:
        """Fork a replica that begins once the answer is sent: no answer, no replica."""
        try:
            orphan = fork_orphan(lambda: self._become_replica(command), self._parent_pid)
        except OSError as error:
            said = error.strerror
            self._send(Forked(request=command.request, errno=error.errno, error=said))
            return
        self._send(Forked(request=command.request, pid=orphan.pid))
        orphan.begin()

    def _become_replica(self, command: Fork) -> int:
        """In the new process: let go of what is the zygote's, and serve."""
        self._connection.close()
        os.setsid()
        _redirect(command.log_path)
        os.environ[TOKEN_VARIABLE] = command.token
        code = self._serve_replica(["--config", command.config_path])
        logging.shutdown()
        return code

    def _send(self, message: Message) -> None:
        self._connection.send(message.packet())


def _settle() -> None:
    """Keep the collector away from what is shared, since looking at an object copies its page."""
    gc.collect()
    gc.freeze()


def _is_alone() -> bool:
    """Whether this process has one thread; one that was joined may need a moment to be gone."""
    give_up = time.monotonic() + _ENDING_THREAD_S
    while len(list(Path("/proc/self/task").iterdir())) > 1:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True


def _redirect(log_path: str) -> None:
    """Output goes to the log from now on, and there is no input."""
    log_file = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)
    os.close(null)
    os.close(log_file)
