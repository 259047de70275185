"""A zygote process, and the conversation with it (see tidegate.protocol.zygote)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tidegate.protocol.zygote import (
    MESSAGE_BYTES,
    Fork,
    Forked,
    Imported,
    Message,
    Reply,
    Warm,
    Warmed,
)
from tidegate_controlplane.provision.child import ChildProcess
from tidegate_controlplane.provision.start import start_failure

ANSWERS_WITHIN_S = 300.0
"""Seconds for a fork; a zygote that is reading a model forks afterwards."""


class ZygoteGone(Exception):
    """It ended before it answered."""


class Zygote:
    """One zygote process, and the conversation with it."""

    def __init__(self, process: ChildProcess, connection: socket.socket, code: str) -> None:
        self.process = process
        self.code = code
        """What `code_on_disk` said when it started."""
        self.warmed: dict[str, Path] = {}
        """The models it was asked to keep ready and took, each with a configuration."""
        self._warming: OrderedDict[str, Path] = OrderedDict()
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._imported: asyncio.Future[None] = self._loop.create_future()
        self._forks: dict[int, asyncio.Future[Forked]] = {}
        self._retired = False
        self._numbers = itertools.count(1)
        self._loop.add_reader(connection, self._receive)

    @property
    def is_open(self) -> bool:
        """Whether it may still be asked."""
        return self._connection.fileno() >= 0

    @property
    def has_imported(self) -> bool:
        """Whether it could fork, once."""
        return self._imported.done() and self._imported.exception() is None

    async def imported(self) -> None:
        """Until it can fork. Raises ZygoteGone."""
        await asyncio.shield(self._imported)

    async def fork(self, config: Path, log: Path, token: str) -> int:
        """The pid of a new replica. Raises ZygoteGone, StartFailed.

        A zygote that does not answer is ended, so that the next one can be asked.
        """
        await self.imported()
        number = next(self._numbers)
        answer: asyncio.Future[Forked] = self._loop.create_future()
        self._forks[number] = answer
        self._send(Fork(request=number, config_path=str(config), log_path=str(log), token=token))
        patience = self._loop.call_later(ANSWERS_WITHIN_S, self.process.send, signal.SIGKILL)
        try:
            forked = await answer
        finally:
            patience.cancel()
        if forked.pid is None:
            raise start_failure("fork a replica process", OSError(forked.errno, forked.error))
        return forked.pid

    @property
    def choked_on(self) -> str | None:
        """The model that it was warming when it ended."""
        return None if self.is_open else next(iter(self._warming), None)

    def warm(self, config: Path, model: str) -> None:
        """Ask it to keep a model ready: a hint that may be lost."""
        if model in self._warming:
            return
        with contextlib.suppress(ZygoteGone):
            self._send(Warm(config_path=str(config)))
            self._warming[model] = config

    def retire(self) -> None:
        """Close once every fork it was asked for is answered: one cut short may have happened."""
        self._retired = True
        if not self._forks:
            self.close()

    def close(self) -> None:
        """End the conversation, and with it the process; what it has answered still counts."""
        if not self.is_open:
            return
        self._loop.remove_reader(self._connection)
        self._hear_out()
        self._connection.close()
        waiting: tuple[asyncio.Future[Any], ...] = (self._imported, *self._forks.values())
        for future in waiting:
            if not future.done():
                future.set_exception(ZygoteGone("the zygote ended"))
                future.exception()  # nobody may be waiting for it
        self._forks.clear()

    def _send(self, message: Message) -> None:
        try:
            self._connection.send(message.packet())
        except OSError as error:
            self.close()
            raise ZygoteGone(f"the zygote does not listen: {error}") from error

    def _receive(self) -> None:
        try:
            packet = self._connection.recv(MESSAGE_BYTES)
        except OSError:
            packet = b""
        if packet:
            self._take(packet)
        if not packet or (self._retired and not self._forks):
            self.close()

    def _hear_out(self) -> None:
        """Take what was sent, and let nothing be sent from now on: a replica that was forked and
        not heard of would be forked again.
        """
        self._connection.shutdown(socket.SHUT_RD)
        while True:
            try:
                packet = self._connection.recv(MESSAGE_BYTES)
            except ConnectionResetError:  # it left a request unread; what it sent is there still
                continue
            if not packet:
                return
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        match Reply.validate_json(packet):
            case Imported():
                self._imported.set_result(None)
            case Forked() as forked:
                self._forks.pop(forked.request).set_result(forked)
            case Warmed():
                model, config = self._warming.popitem(last=False)
                self.warmed[model] = config
