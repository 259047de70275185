"""The HTTP application, put together from its services."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from tidegate.version import VERSION
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.forward import Forwarder
from tidegate_controlplane.gateway.gateway import Gateway
from tidegate_controlplane.gateway.profiler import Profiler
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.web import docs, health
from tidegate_controlplane.web.context import principal_of
from tidegate_controlplane.web.errors import respond
from tidegate_controlplane.web.shell import Shell

if TYPE_CHECKING:
    from tidegate_controlplane.deployments.service import Deployments
    from tidegate_controlplane.offers.service import Offers
    from tidegate_controlplane.webhooks.service import Webhooks
    from tidegate_controlplane.work.batches import Batches
    from tidegate_controlplane.work.files import Files
    from tidegate_controlplane.work.invocations import Invocations
    from tidegate_controlplane.work.rotation import Rotation


@dataclass(frozen=True)
class Services:
    """What the routes are made of. Each one is injected into handlers under its own name."""

    settings: Settings
    clock: Clock
    database: Database
    endpoints: Endpoints
    catalog: Catalog
    keys: KeyService
    quotas: Quotas
    usage: UsageBook
    watch: Watch
    forwarder: Forwarder
    profiler: Profiler
    deployments: Deployments
    offers: Offers
    files: Files
    batches: Batches
    invocations: Invocations
    webhooks: Webhooks
    rotation: Rotation
    ready: asyncio.Event
    """Set while requests may be sent; `/readyz` says so."""


class Platform(Litestar):
    """Litestar inside the shell: what the shell refuses is never routed."""

    shell: Shell

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or take part in the server's start and end."""
        await self.shell.run(super().__call__, scope, receive, send)


def build_app(services: Services, handlers: Sequence[ControllerRouterHandler]) -> Litestar:
    """The application that answers with `handlers`, the health routes and the OpenAPI page.

    Bodies are not limited here: each reader has its own bound.
    """
    app = Platform(
        route_handlers=[*health.HANDLERS, *docs.HANDLERS, *handlers],
        dependencies=_dependencies(services),
        exception_handlers={Exception: respond},
        request_max_body_size=None,
        openapi_config=None,
        logging_config=None,
    )
    app.shell = Shell(services.keys, services.quotas, services.clock)
    return app


def _dependencies(services: Services) -> dict[str, Provide]:
    gateway = Gateway(
        catalog=services.catalog,
        endpoints=services.endpoints,
        forwarder=services.forwarder,
        quotas=services.quotas,
        usage=services.usage,
        watch=services.watch,
        limits=services.settings.limits,
        clock=services.clock,
    )
    own = {field.name: getattr(services, field.name) for field in fields(services)}
    constants = {**own, "gateway": gateway}
    provided = {name: _always(value) for name, value in constants.items()}
    return {
        **provided,
        "principal": Provide(_principal, sync_to_thread=False),
        "openapi": Provide(_openapi, sync_to_thread=False),
    }


def _always(value: object) -> Provide:
    def provide() -> Any:
        return value

    return Provide(provide, sync_to_thread=False)


def _principal(request: Request[Any, Any, Any]) -> Principal:
    return principal_of(request)


def _openapi(request: Request[Any, Any, Any]) -> bytes:
    app = request.app
    if "openapi" not in app.state:
        app.state.openapi = docs.written_document(app, VERSION)
    written: bytes = app.state.openapi
    return written
