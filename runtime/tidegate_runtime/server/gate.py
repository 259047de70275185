"""What every request passes before it is routed: the token, and whether work is taken."""

from __future__ import annotations

import hmac
import re
import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.protocol.openai import ENDPOINT_REQUESTS
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.envelope import error_body, error_headers, error_status
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.metrics import Metrics

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOOPBACK = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\Z")
ARRIVED = "tidegate.arrived_s"
"""The key in a request's scope for its arrival on the monotonic clock."""


class Gate:
    """An ASGI application around another one.

    It stands outside the router, so an unknown path too needs the token, and so a request stays in
    flight until the last byte of its answer.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, lifecycle: Lifecycle, metrics: Metrics
    ) -> None:
        """Without a token only requests that name this machine's loopback as their host pass: a web
        page can make a browser send others here (DNS rebinding).
        """
        self._app = app
        self._token = None if token is None else token.encode()
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            self._authenticate(scope)
            if scope["path"] not in ENDPOINT_REQUESTS:
                await self._app(scope, receive, send)
                return
            with self._lifecycle.work():
                await self._measured(scope, receive, send)
        except RequestRefused as error:
            await send_refusal(error, send)

    def _authenticate(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._token is None:
            host = headers.get(b"host", b"").decode("latin-1")
            if _LOOPBACK.match(host) is None:
                raise RequestRefused(
                    f"This replica has no token and serves its own machine only, not {host!r}; use "
                    "http://127.0.0.1, or start it with a token.",
                    code="forbidden_host",
                    status=403,
                )
            return
        given = headers.get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise RequestRefused(
                "This replica wants 'Authorization: Bearer <token>' with the token of its "
                "control plane; send requests to the gateway instead.",
                code="invalid_api_key",
                status=401,
            )

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 499

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})[ARRIVED] = time.monotonic()
        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.request(scope["path"], status)


async def send_refusal(error: RequestRefused, send: Send) -> None:
    """Answer a request with an error, outside the router."""
    body = error_body(error).model_dump_json().encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= error_headers(error)
    await send(
        {
            "type": "http.response.start",
            "status": error_status(error),
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
