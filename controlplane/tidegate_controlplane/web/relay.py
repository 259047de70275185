"""An answer that is produced while it is sent, and stops at once when its client goes away.

A producer is an async generator: first a `Head`, then the bytes of the body. It runs in one task
from beginning to end, so whatever it holds open (a replica's answer, a counter) is given back when
that task is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from litestar.types import Message, Receive, Scope, Send

STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Of an answer in server-sent events: nobody on the way is to keep or gather it."""
HEARTBEAT = b": waiting\n\n"
"""An SSE comment: readers skip it, proxies see that the connection lives."""


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer."""

    status: int
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


Producer = AsyncGenerator[Head | bytes, None]


class _ClientStalled(Exception):
    """A client is connected and takes nothing."""


@dataclass
class Patience:
    """What a client is sent whose answer is long in coming: a head, then comments.

    Once the head is sent (`is_spent`), a producer can say what goes wrong in its body only.
    """

    head: Head
    every_s: float
    """Before the head, and between comments."""
    is_spent: bool = False


class Relay:
    """An ASGI application that sends what a producer yields, unbuffered.

    What the producer raises before its Head is an error like any other and has its own status. A
    client that takes nothing for `stall_s` is left: the producer is stopped, and its connection
    closed.
    """

    def __init__(
        self, producer: Producer, *, stall_s: float, patience: Patience | None = None
    ) -> None:
        self._producer = producer
        self._stall_s = stall_s
        self._patience = patience

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; return when it is sent or the client is gone."""
        with suppress(_ClientStalled):
            async with _taken_within(self._stall_s, send) as watched:
                await until_gone(receive, self._send_all(watched))

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._producer) as producer:
            async with _comments(send, self._patience):
                head = await anext(producer)
                if not isinstance(head, Head):
                    raise TypeError("a producer begins with a Head")
            if self._patience is None or not self._patience.is_spent:
                await send(_start(head))
            async for piece in producer:
                if isinstance(piece, bytes):
                    await send(_body(piece))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def _taken_within(stall_s: float, send: Send) -> AsyncIterator[Send]:
    """A `send` that may block for `stall_s`: then the block is cancelled, with _ClientStalled.

    One timer looks after all that is sent, because a timer for each event would cost as much as
    sending it does.
    """
    loop = asyncio.get_running_loop()
    blocked_since: float | None = None
    timer: asyncio.TimerHandle

    async def watched(message: Message) -> None:
        nonlocal blocked_since
        blocked_since = loop.time()
        try:
            await send(message)
        finally:
            blocked_since = None

    def look() -> None:
        nonlocal timer
        free_at = loop.time() if blocked_since is None else blocked_since
        if free_at + stall_s <= loop.time():
            limit.reschedule(loop.time())
        else:
            timer = loop.call_at(free_at + stall_s, look)

    timer = loop.call_later(stall_s, look)
    try:
        async with asyncio.timeout(None) as limit:
            yield watched
    except TimeoutError:
        raise _ClientStalled from None
    finally:
        timer.cancel()


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, but cancel it as soon as the client disconnects. The body has been read."""
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        await _disconnect(receive)
        is_gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if not is_gone or working.uncancel():
            raise
    finally:
        watching.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def _comments(send: Send, patience: Patience | None) -> AsyncIterator[None]:
    """Send `patience` while the block takes longer than it allows."""
    if patience is None:
        yield
        return
    beating: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        patience.every_s, lambda: beating.append(asyncio.create_task(_beat(send, patience)))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in beating:
            task.cancel()
        await asyncio.gather(*beating, return_exceptions=True)


async def _beat(send: Send, patience: Patience) -> None:
    patience.is_spent = True
    await send(_start(patience.head))
    while True:
        await send(_body(HEARTBEAT))
        await asyncio.sleep(patience.every_s)


def _start(head: Head) -> Any:
    headers = {"content-type": head.media_type, **head.headers}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": head.status, "headers": encoded}


def _body(piece: bytes) -> Any:
    return {"type": "http.response.body", "body": piece, "more_body": True}
