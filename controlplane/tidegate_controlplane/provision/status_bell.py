"""The datagrams by which replicas tell that their status file has changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable

HINT_BYTES = 256


class StatusBell:
    """An abstract Unix socket: it has no file to be left behind, and a name nobody guesses.

    Any process of this machine may send to it; a hint costs one look and is believed no further.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self.name = f"tidegate-{os.getpid()}-{secrets.token_hex(8)}"
        self._ring = ring
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + self.name)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._take)

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _take(self) -> None:
        """Take every hint there is; one look answers them all."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(HINT_BYTES)
        self._ring()
