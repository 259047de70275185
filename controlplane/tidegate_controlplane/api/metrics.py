"""The control plane's numbers, for whoever scrapes them."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler

from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.web.openapi import Media, describe

_TEXT = Media("text/plain", schema={"type": "string"})


@get(
    "/metrics",
    opt=describe("Numbers in Prometheus' text format", answers={200: _TEXT}),
    sync_to_thread=False,
)
def metrics(watch: NamedDependency[Watch]) -> Response[bytes]:
    """What the control plane counts; wants a key with the role admin."""
    return Response(watch.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


HANDLERS: list[ControllerRouterHandler] = [metrics]
