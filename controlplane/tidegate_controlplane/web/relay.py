"""An answer that is produced while it is sent, and stops at once when its client goes away.

A producer is an async generator: first a `Head`, then the bytes of the body. It runs in one task
from beginning to end, so whatever it holds open (a replica's answer, a counter) is given back when
that task is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from litestar.types import Receive, Scope, Send

HEARTBEAT = b": waiting for a replica\n\n"
"""An SSE comment: readers skip it, proxies see that the connection lives."""


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer."""

    status: int
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)
    heartbeat_s: float | None = None
    """Seconds between SSE comments until the first byte comes; None for no comments."""


Producer = AsyncGenerator[Head | bytes, None]


class Relay:
    """An ASGI application that sends what a producer yields, unbuffered.

    What the producer raises before its Head is an error like any other and has its own status.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; return when it is sent or the client is gone."""
        await until_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._producer) as producer:
            head = await anext(producer)
            if not isinstance(head, Head):
                raise TypeError("a producer begins with a Head")
            await send(_start(head))
            if head.heartbeat_s is None:
                first = await anext(producer, None)
            else:
                async with _heartbeats(send, head.heartbeat_s):
                    first = await anext(producer, None)
            if isinstance(first, bytes):
                await send(_body(first))
                async for piece in producer:
                    if isinstance(piece, bytes):
                        await send(_body(piece))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, but cancel it as soon as the client disconnects. The body has been read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def _heartbeats(send: Send, every_s: float) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            await send(_body(HEARTBEAT))
            await asyncio.sleep(every_s)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def _start(head: Head) -> Any:
    headers = {"content-type": head.media_type, **head.headers}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": head.status, "headers": encoded}


def _body(piece: bytes) -> Any:
    return {"type": "http.response.body", "body": piece, "more_body": True}
