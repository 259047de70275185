"""The socket that a replica listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tidegate_runtime.errors import ReplicaUnavailable
from tidegate_runtime.server.process import bind


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ReplicaUnavailable, match=str(port)):
            bind("127.0.0.1", port)


async def test_tokens_leave_at_once_instead_of_waiting_for_an_acknowledgement() -> None:
    """Nagle's algorithm and delayed acknowledgements would add 40 ms to an answer."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        await writer.wait_closed()

    listener = bind("127.0.0.1", 0)
    async with await asyncio.start_server(accept, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await found != 0
        writer.close()
        await writer.wait_closed()
