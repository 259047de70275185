"""SageMaker's contract: `GET /ping` says whether to send requests, `POST /invocations` takes them.

An invocation becomes an ordinary request for one of the routes, so limits, errors, streams, counts
and logs are those of every other. `/ping` has to answer within 2 seconds
(AWS, "Use Your Own Inference Code with Hosting Services").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from litestar.types.asgi_types import HTTPReceiveMessage

from tidegate.protocol.replica import (
    PRIORITY_HEADER,
    PROJECT_HEADER,
    REQUEST_HEADER,
    ReplicaState,
)
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.attributes import HEADER, Attributes, read_attributes
from tidegate_runtime.server.body import read_body, read_json
from tidegate_runtime.server.envelope import send_refusal
from tidegate_runtime.server.lifecycle import Lifecycle

PING = "/ping"
INVOCATIONS = "/invocations"
_METHODS = {PING: "GET", INVOCATIONS: "POST"}
_TOLD = frozenset(name.lower() for name in (PROJECT_HEADER, PRIORITY_HEADER, REQUEST_HEADER))
_SHAPES = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings",
    "query": "/v1/rerank",
    "text_1": "/v1/score",
}
"""The field that tells a body's route."""


class SageMaker:
    """An ASGI application before two others: `routes` gets the invocations, without a token, and
    `gate` everything else.
    """

    def __init__(self, gate: ASGIApp, routes: ASGIApp, lifecycle: Lifecycle) -> None:
        self._gate = gate
        self._routes = routes
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] not in _METHODS:
            await self._gate(scope, receive, send)
            return
        try:
            _check_method(scope)
            if scope["path"] == PING:
                await self._ping(send)
            else:
                await self._invoke(scope, receive, send)
        except RequestRefused as error:
            await send_refusal(error, send)

    async def _ping(self, send: Send) -> None:
        state = self._lifecycle.state
        await send(
            {
                "type": "http.response.start",
                "status": 200 if state is ReplicaState.READY else 503,
                "headers": [(b"content-type", b"text/plain; charset=utf-8")],
            }
        )
        await send({"type": "http.response.body", "body": state.encode(), "more_body": False})

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        told = read_attributes(headers.get(HEADER.lower(), ""))
        path = told.path
        if path is None:
            body = await read_body(headers.get("content-length"), _chunks(receive))
            path = await asyncio.to_thread(route_of, body)
            receive = _again(body, receive)
        await self._routes(_for_route(scope, path, told), receive, send)


def route_of(body: bytes) -> str:
    """The route that a body is for, by its shape. Raises RequestRefused (400)."""
    value = read_json(body)
    found = [field for field in _SHAPES if isinstance(value, dict) and field in value]
    if len(found) != 1:
        raise RequestRefused(
            f"{HEADER}: '' does not say a path, and the body has {' and '.join(found) or 'none'} "
            f"of {', '.join(_SHAPES)}, which would; send {HEADER}: path=/v1/chat/completions.",
            code="unknown_route",
        )
    return _SHAPES[found[0]]


def _check_method(scope: HTTPScope) -> None:
    method, allowed = scope["method"], _METHODS[scope["path"]]
    if method != allowed:
        raise RequestRefused(
            f"{method} {scope['path']}: the method is not allowed; use {allowed}.", status=405
        )


def _for_route(scope: Scope, path: str, told: Attributes) -> Scope:
    """The same request for a route. What the replica trusts its gateway to say of a request comes
    from the attributes alone.
    """
    kept = [pair for pair in scope["headers"] if pair[0].decode("latin-1").lower() not in _TOLD]
    added = [(name.lower().encode(), value.encode()) for name, value in told.headers]
    changed = {"path": path, "raw_path": path.encode(), "headers": [*kept, *added]}
    return cast("Scope", {**scope, **changed})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            return
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read, and then what comes after it."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> HTTPReceiveMessage:
        return cast("HTTPReceiveMessage", first.pop() if first else await receive())

    return receiving
