"""A process that has imported Jinja and forks the processes in which chat templates run.

It runs no template itself. A message on its socket is the limits of one rendering, with three
descriptors: where the new process reads, where it writes, and a socket that is told first its pid,
with a handle of it, and then how it ended. It ends when nobody holds the other end any more.
"""

from __future__ import annotations

import gc
import os
import select
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tidegate_runtime.chat.render_process import Limits, answer_all, prepare

PACKET_BYTES = 64
DESCRIPTORS = 3
_STANDARD = ("0", "1", "2")


def main(descriptor: int) -> None:
    """Fork as `descriptor`, a socket of packets, asks for it."""
    prepare()
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=descriptor)
    waiting: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                _tell_end(ready, *waiting.pop(ready))
                continue
            packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, DESCRIPTORS)
            if not packet:
                return
            handle, pid, teller = _fork(Limits(*map(float, packet.split())), *descriptors)
            waiting[handle] = pid, teller
            poll.register(handle, select.POLLIN)


def _fork(limits: Limits, reads: int, writes: int, tells: int) -> tuple[int, int, socket.socket]:
    """A handle of the new process, its pid, and the socket of who asked for it."""
    pid = os.fork()
    if pid == 0:
        _become_process(limits, reads, writes)
    os.close(reads)
    os.close(writes)
    teller, handle = socket.socket(fileno=tells), os.pidfd_open(pid)
    _send(teller, pid, [handle])
    return handle, pid, teller


def _become_process(limits: Limits, reads: int, writes: int) -> NoReturn:
    status = 1
    try:
        os.dup2(reads, 0)
        os.dup2(writes, 1)
        _close_all_but(_STANDARD)
        answer_all(limits)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(kept: Collection[str]) -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        if entry.name not in kept:
            with suppress(OSError):  # the one that listed them is closed
                os.close(int(entry.name))


def _tell_end(handle: int, pid: int, teller: socket.socket) -> None:
    os.close(handle)
    _, status = os.waitpid(pid, 0)
    with teller:
        _send(teller, os.waitstatus_to_exitcode(status), [])


def _send(teller: socket.socket, number: int, descriptors: list[int]) -> None:
    with suppress(OSError):  # who asked may be gone; the process ends with its pipes
        socket.send_fds(teller, [str(number).encode()], descriptors)
