"""Answers that last: server-sent events, and work that ends when its caller goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from litestar.types import Receive, Scope, Send
from pydantic import BaseModel

from tidegate_runtime.errors import GenerationFailed, RuntimeFault
from tidegate_runtime.server.envelope import error_body

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `work`, or None when the caller went away first and `work` was cancelled.

    The request's body must have been read to its end.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _cancel(working, leaving)


class EventStream:
    """An ASGI answer that sends each item as one `data:` event and ends with `[DONE]`.

    `first` was made before the answer starts, so an error until then is an ordinary HTTP error. A
    failure after it ends the stream with an error event and without `[DONE]`.
    """

    def __init__(self, first: BaseModel, rest: AsyncGenerator[BaseModel]) -> None:
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await unless_disconnected(receive, self._send_events(send))

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._rest):
            await _send(send, _event(self._first))
            try:
                async for item in self._rest:
                    await _send(send, _event(item))
            except RuntimeFault as error:
                await _send(send, _event(error_body(error)))
            except Exception:
                log.exception("a stream failed")
                failure = GenerationFailed("the stream failed; the replica's log says why")
                await _send(send, _event(error_body(failure)))
            else:
                await _send(send, b"data: [DONE]\n\n")
            await _send(send, b"", more=False)


def _event(item: BaseModel) -> bytes:
    # Only what was set: a chunk says null where OpenAI's does, and leaves out what OpenAI does.
    return b"data: " + item.model_dump_json(exclude_unset=True).encode() + b"\n\n"


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
