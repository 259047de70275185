"""Taking work: a request is in flight from here to the last byte of its answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.protocol.replica import REQUEST_HEADER
from tidegate.protocol.tokenize import ONLINE_REQUESTS
from tidegate.telemetry.logs import working_on
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.envelope import send_refusal
from tidegate_runtime.server.replica import Replica
from tidegate_runtime.server.tracing import RequestTrace

_ID_CHARS = 128
ARRIVAL = "tidegate.arrival"
"""The key in a request's scope for its `Arrival`."""

log = logging.getLogger("tidegate_runtime.access")


@dataclass(frozen=True)
class Arrival:
    """When a request came, on the monotonic clock, and the trace of what becomes of it."""

    at_s: float
    trace: RequestTrace


class Intake:
    """An ASGI application around the router, so that it sees the whole of an answer."""

    def __init__(self, app: ASGIApp, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] not in ONLINE_REQUESTS:
            await self._app(scope, receive, send)
            return
        try:
            with self._replica.lifecycle.work():
                await self._seen(scope, receive, send)
        except RequestRefused as error:
            await send_refusal(error, send)

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
