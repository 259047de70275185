"""What every request passes before it is routed: the token, and whether work is taken."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.protocol.openai import ENDPOINT_REQUESTS
from tidegate.protocol.replica import REQUEST_HEADER
from tidegate.telemetry.logs import working_on
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.envelope import error_body, error_headers, error_status
from tidegate_runtime.server.replica import Replica
from tidegate_runtime.server.tracing import RequestTrace

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOOPBACK = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\Z")
_ID_CHARS = 128
ARRIVAL = "tidegate.arrival"
"""The key in a request's scope for its `Arrival`."""

log = logging.getLogger("tidegate_runtime.access")


@dataclass(frozen=True)
class Arrival:
    """When a request came, on the monotonic clock, and the trace of what becomes of it."""

    at_s: float
    trace: RequestTrace


class Gate:
    """An ASGI application around another one.

    It stands outside the router, so an unknown path too needs the token, and so a request stays in
    flight until the last byte of its answer.
    """

    def __init__(self, app: ASGIApp, token: str | None, replica: Replica) -> None:
        """Without a token only requests that name this machine's loopback as their host pass: a web
        page can make a browser send others here (DNS rebinding).
        """
        self._app = app
        self._token = None if token is None else token.encode()
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            self._authenticate(scope)
            if scope["path"] not in ENDPOINT_REQUESTS:
                await self._app(scope, receive, send)
                return
            with self._replica.lifecycle.work():
                await self._seen(scope, receive, send)
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

    async def _seen(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer under the request's id and trace, then count it and log its line."""
        status = 499

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        replica, path = self._replica, scope["path"]
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        at_s = time.monotonic()
        trace = RequestTrace.begin(replica.tracer, path, headers, replica.config.model_name, at_s)
        scope.setdefault("state", {})[ARRIVAL] = Arrival(at_s, trace)
        with working_on(_request_id(headers)):
            try:
                await self._app(scope, receive, sending)
            finally:
                replica.metrics.request(path, status)
                trace.end(status)
                elapsed_ms = round((time.monotonic() - at_s) * 1000, 1)
                fields = {"path": path, "status": status, "ms": elapsed_ms}
                log.info("answered", extra={"fields": fields})


def _request_id(headers: Mapping[str, str]) -> str | None:
    """As the gateway says it; whoever asks without a gateway need not."""
    return headers.get(REQUEST_HEADER.lower(), "")[:_ID_CHARS] or None


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
