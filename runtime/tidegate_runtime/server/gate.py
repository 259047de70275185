"""What every request passes before its work is taken: the token."""

from __future__ import annotations

import hmac
import re

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.envelope import send_refusal

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LOOPBACK = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\Z")


class Gate:
    """An ASGI application around another one.

    It stands outside the router, so an unknown path too needs the token.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Without a token only requests that name this machine's loopback as their host pass: a web
        page can make a browser send others here (DNS rebinding).
        """
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == ScopeType.HTTP and scope["path"] not in _OPEN_PATHS:
                self._authenticate(scope)
        except RequestRefused as error:
            await send_refusal(error, send)
        else:
            await self._app(scope, receive, send)

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
