"""The routes of durable work."""

from __future__ import annotations

from litestar.types import ControllerRouterHandler

from tidegate_controlplane.work import (
    batch_routes,
    file_routes,
    invocation_routes,
    result_routes,
    submission_routes,
)

HANDLERS: list[ControllerRouterHandler] = [
    *file_routes.HANDLERS,
    *batch_routes.HANDLERS,
    *submission_routes.HANDLERS,
    *invocation_routes.HANDLERS,
    *result_routes.HANDLERS,
]
