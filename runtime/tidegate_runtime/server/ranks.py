"""The processes that run a divided model beside a replica's own: forked, told, watched, ended.

They are forked before the replica starts its threads and imports torch; one that a zygote made
gives them all that is imported. They end when the replica hangs up, and by the kernel's hand when
it dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tidegate_runtime.errors import EngineDead, ModelRefused
from tidegate_runtime.parallel.orders import End, Open, Refused, Whole
from tidegate_runtime.server.parent import tie_to

if TYPE_CHECKING:
    from tidegate_runtime.models.base import LayeredDecoder

log = logging.getLogger(__name__)

_END_WITHIN_S = 2.0


class Ranks:
    """All ranks but this process's own, which is 0."""

    def __init__(self, followers: list[tuple[int, Connection]]) -> None:
        """`followers` are the pids of children of this process, and the way to each."""
        self.size = 1 + len(followers)
        self._followers = followers
        self._telling = threading.Lock()
        self._asking = threading.Lock()
        self._closing = False

    def open(self, whole: Whole) -> LayeredDecoder:
        """Have every rank take its part of a model; returns that of this one.

        Raises ModelRefused, EngineDead.
        """
        from tidegate_runtime.parallel.rank import open_part

        with _meeting_place() as rendezvous:
            own = Open(whole, 0, self.size, rendezvous)
            for rank, (pid, connection) in enumerate(self._followers, start=1):
                _tell(rank, pid, connection, replace(own, rank=rank))
            decoder = open_part(own)
            for answer in self._answers():
                if isinstance(answer, Refused):
                    raise ModelRefused(answer.reason, answer.message)
        return decoder

    def tell(self, order: object) -> None:
        """Give every one of them an order; from any thread, and all get the same ones in the same
        order. Raises EngineDead when one is gone.
        """
        with self._telling:
            for rank, (pid, connection) in enumerate(self._followers, start=1):
                _tell(rank, pid, connection, order)

    def ask(self, order: object) -> list[object]:
        """What each of them answers to an order; they are told of others meanwhile.

        Blocks. Raises EngineDead when one is gone.
        """
        with self._asking:
            self.tell(order)
            return self._answers()

    def watch(self, on_death: Callable[[EngineDead], None]) -> None:
        """Call `on_death` once, from a thread, when one ends before it is told to."""
        # By their processes: on their connections they answer, too.
        handles = [os.pidfd_open(pid) for pid, _ in self._followers]
        arguments = (handles, on_death)
        threading.Thread(target=self._watch, args=arguments, name="ranks", daemon=True).start()

    def close(self) -> None:
        """Let all of them end, and wait until they have."""
        self._closing = True
        for _, connection in self._followers:
            with contextlib.suppress(OSError):
                connection.send(End())
        give_up = time.monotonic() + _END_WITHIN_S
        for pid, _ in self._followers:
            _collect(pid, give_up)

    def _answers(self) -> list[object]:
        """The next thing that each of them says."""
        return [
            _heard(rank, pid, connection)
            for rank, (pid, connection) in enumerate(self._followers, start=1)
        ]

    def _watch(self, handles: list[int], on_death: Callable[[EngineDead], None]) -> None:
        ended = wait(handles)
        gone = [
            _gone(rank, pid)
            for rank, ((pid, _), handle) in enumerate(
                zip(self._followers, handles, strict=True), start=1
            )
            if handle in ended
        ]
        for handle in handles:
            os.close(handle)
        if not self._closing:
            on_death(gone[0])


@contextlib.contextmanager
def forked_ranks(size: int) -> Iterator[Ranks | None]:
    """The ranks 1.. of `size` while they are needed; None when there are none.

    Raises OSError when the machine has no room for them.
    """
    if size == 1:
        yield None
        return
    ranks = _fork(size)
    try:
        yield ranks
    finally:
        ranks.close()


def _fork(size: int) -> Ranks:
    parent_pid = os.getpid()
    followers: list[tuple[int, Connection]] = []
    for _ in range(1, size):
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            # Who held another's end too would keep it from seeing that the replica hung up.
            for connection in (ours, *(earlier for _, earlier in followers)):
                connection.close()
            _become_rank(theirs, parent_pid)
        theirs.close()
        followers.append((pid, ours))
    return Ranks(followers)


def _become_rank(connection: Connection, parent_pid: int) -> NoReturn:
    code = 1
    try:
        tie_to(parent_pid)
        # They go to a whole group of processes; how a rank ends, the replica decides.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        from tidegate_runtime.parallel.rank import follow

        follow(connection)
        code = 0
    except EngineDead as error:
        log.error("%s", error.message)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not become a replica
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _meeting_place() -> Iterator[Path]:
    """A file that nobody else can name, while the ranks meet."""
    with tempfile.TemporaryDirectory(prefix="tidegate-ranks-") as directory:
        yield Path(directory) / "rendezvous"


def _tell(rank: int, pid: int, connection: Connection, order: object) -> None:
    try:
        connection.send(order)
    except OSError as error:
        raise _gone(rank, pid) from error


def _heard(rank: int, pid: int, connection: Connection) -> object:
    try:
        answer: object = connection.recv()
    except (EOFError, OSError) as error:
        raise _gone(rank, pid) from error
    return answer


def _gone(rank: int, pid: int) -> EngineDead:
    return EngineDead(
        f"rank {rank} of this replica, process {pid}, has ended, so that its part of the model is "
        "gone; the log of the replica says why"
    )


def _collect(pid: int, give_up: float) -> None:
    """Wait for a child until it is time to give up, then kill it."""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > give_up:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.005)
