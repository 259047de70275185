"""Is the process alive, and may it be sent requests."""

from __future__ import annotations

import asyncio

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler

from tidegate_controlplane.web.openapi import Media, describe

_TEXT = Media("text/plain", schema={"type": "string"})


@get(
    "/healthz",
    opt=describe("Whether the process serves", answers={200: _TEXT}, public=True),
    sync_to_thread=False,
)
def healthz() -> Response[str]:
    """200 while the process serves."""
    return Response("ok\n", media_type="text/plain")


@get(
    "/readyz",
    opt=describe(
        "Whether the platform takes requests", answers={200: _TEXT, 503: _TEXT}, public=True
    ),
    sync_to_thread=False,
)
def readyz(ready: NamedDependency[asyncio.Event]) -> Response[str]:
    """503 until everything behind the routes has started, and again while it stops."""
    is_ready = ready.is_set()
    return Response(
        "ready\n" if is_ready else "starting\n",
        status_code=200 if is_ready else 503,
        media_type="text/plain",
    )


HANDLERS: list[ControllerRouterHandler] = [healthz, readyz]
