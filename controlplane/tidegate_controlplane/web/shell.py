"""Around every request: its id, its caller, its quota, its errors, its line in the access log.

The shell stands before routing, so what it refuses never reaches a handler, and a path that no
route answers is treated like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.telemetry.logs import working_on
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.web import context, guard
from tidegate_controlplane.web.errors import Rendered, render
from tidegate_controlplane.web.request_id import HEADER, request_id

ACCESS_LOG = logging.getLogger("tidegate.access")
CLIENT_GONE = 499
"""Logged when a client left before an answer began; nobody receives it."""


class Shell:
    """Runs an ASGI application for callers that may."""

    def __init__(self, keys: KeyService, quotas: Quotas, clock: Clock) -> None:
        self._keys = keys
        self._quotas = quotas
        self._clock = clock

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._quotas)
        started = self._clock.monotonic()
        with working_on(exchange.request_id):
            try:
                await self._admitted(exchange, app, scope, receive)
            finally:
                elapsed_ms = (self._clock.monotonic() - started) * 1000
                ACCESS_LOG.info("answered", extra={"fields": exchange.facts(elapsed_ms)})

    async def _admitted(
        self, exchange: _Exchange, app: ASGIApp, scope: Scope, receive: Receive
    ) -> None:
        try:
            await self._admit(exchange)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes an answer
            await exchange.refuse(error)
        else:
            await app(scope, receive, exchange.send)

    async def _admit(self, exchange: _Exchange) -> None:
        if guard.is_public(exchange.path):
            return
        principal = await self._keys.authenticate(exchange.header("authorization"))
        exchange.principal = principal
        context.remember_principal(exchange.scope, principal)
        guard.check_role(principal, exchange.path)
        if guard.is_charged(exchange.method, exchange.path):
            self._quotas.admit(principal)


class _Exchange:
    """One request and what was answered."""

    def __init__(self, scope: Any, send: Send, quotas: Quotas) -> None:
        self.scope: Any = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = request_id(self.header(HEADER))
        self.principal: Principal | None = None
        self.status = CLIENT_GONE
        self._send = send
        self._quotas = quotas
        context.remember(scope, request_id=self.request_id)

    def header(self, name: str) -> str | None:
        wanted = name.encode()
        found = (value for key, value in self.scope["headers"] if key.lower() == wanted)
        value: bytes | None = next(found, None)
        return value.decode("latin-1") if value is not None else None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *_encoded(self._extra_headers())]
        await self._send(message)

    async def refuse(self, error: Exception) -> None:
        rendered = render(error, method=self.method, path=self.path, request_id=self.request_id)
        await send_rendered(rendered, self.send)

    def facts(self, elapsed_ms: float) -> dict[str, Any]:
        """What its line in the access log tells, beside its id."""
        facts = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "ms": round(elapsed_ms, 1),
            "key": self.principal.key_id if self.principal else None,
            "deployment": self.scope["state"].get("deployment"),
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _extra_headers(self) -> Iterable[tuple[str, str]]:
        yield HEADER, self.request_id
        if self.principal is not None and self.path.startswith(guard.DATA_PLANE):
            yield from self._quotas.headers(self.principal).items()


async def send_rendered(rendered: Rendered, send: Send) -> None:
    """Send an error as the whole answer."""
    headers = {
        **rendered.headers,
        "content-type": rendered.media_type,
        "content-length": str(len(rendered.body)),
    }
    await send(
        {
            "type": "http.response.start",
            "status": rendered.status,
            "headers": list(_encoded(headers.items())),
        }
    )
    await send({"type": "http.response.body", "body": rendered.body, "more_body": False})


def _encoded(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
