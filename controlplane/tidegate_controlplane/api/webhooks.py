"""Webhooks: declare, look, send again."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate.protocol.resources import Page
from tidegate.protocol.webhooks import (
    DeliveryState,
    DeliveryView,
    ReplayRequest,
    ReplayView,
    RotateRequest,
    WebhookChange,
    WebhookCreated,
    WebhookRequest,
    WebhookView,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query
from tidegate_controlplane.webhooks.service import Webhooks

AnyRequest = Request[Any, Any, Any]


class DeliveriesQuery(PageQuery):
    status: DeliveryState | None = None


@post(
    "/api/v1/webhooks",
    status_code=201,
    opt=describe(
        "Declare a webhook; its secret is shown this once",
        body=WebhookRequest,
        answers={201: WebhookCreated},
        refuses=(409,),
    ),
)
async def create_webhook(
    request: AnyRequest, principal: NamedDependency[Principal], webhooks: NamedDependency[Webhooks]
) -> Response[bytes]:
    wanted = await read_model(request, WebhookRequest, DECLARATION_BYTES)
    return answer(await webhooks.create(principal.project_id, wanted), 201)


@get(
    "/api/v1/webhooks",
    opt=describe(
        "List the webhooks, oldest first", query=PageQuery, answers={200: Page[WebhookView]}
    ),
)
async def list_webhooks(
    request: AnyRequest, principal: NamedDependency[Principal], webhooks: NamedDependency[Webhooks]
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(await webhooks.list(principal.project_id, query.after, query.limit))


@get("/api/v1/webhooks/{webhook_id:str}", opt=describe("A webhook", answers={200: WebhookView}))
async def get_webhook(
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    return answer(await webhooks.get(principal.project_id, webhook_id))


@patch(
    "/api/v1/webhooks/{webhook_id:str}",
    opt=describe("Change a webhook", body=WebhookChange, answers={200: WebhookView}),
)
async def change_webhook(
    request: AnyRequest,
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    """What is absent stays; `enabled` begins anew with one that was given up."""
    wanted = await read_model(request, WebhookChange, DECLARATION_BYTES)
    return answer(await webhooks.change(principal.project_id, webhook_id, wanted))


@delete(
    "/api/v1/webhooks/{webhook_id:str}",
    status_code=200,
    opt=describe("Delete a webhook: what waits is given up", answers={200: WebhookView}),
)
async def delete_webhook(
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    return answer(await webhooks.delete(principal.project_id, webhook_id))


@post(
    "/api/v1/webhooks/{webhook_id:str}/rotate-secret",
    status_code=200,
    opt=describe(
        "A new secret, shown this once; both sign for a while",
        body=RotateRequest,
        answers={200: WebhookCreated},
    ),
)
async def rotate_webhook_secret(
    request: AnyRequest,
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    wanted = await read_model(request, RotateRequest, DECLARATION_BYTES)
    return answer(await webhooks.rotate(principal.project_id, webhook_id, wanted))


@post(
    "/api/v1/webhooks/{webhook_id:str}/test",
    status_code=202,
    opt=describe("Send a `webhook.test` event to it", answers={202: DeliveryView}, refuses=(409,)),
)
async def send_test_event(
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    return answer(await webhooks.test(principal.project_id, webhook_id), 202)


@post(
    "/api/v1/webhooks/{webhook_id:str}/replay",
    status_code=202,
    opt=describe(
        "Send again what was given up in a range of time",
        body=ReplayRequest,
        answers={202: ReplayView},
    ),
)
async def replay_deliveries(
    request: AnyRequest,
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    wanted = await read_model(request, ReplayRequest, DECLARATION_BYTES)
    return answer(await webhooks.replay_range(principal.project_id, webhook_id, wanted), 202)


@get(
    "/api/v1/webhooks/{webhook_id:str}/deliveries",
    opt=describe(
        "What was sent or will be, newest first",
        query=DeliveriesQuery,
        answers={200: Page[DeliveryView]},
    ),
)
async def list_deliveries(
    request: AnyRequest,
    webhook_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    query = read_query(request, DeliveriesQuery)
    return answer(
        await webhooks.deliveries(
            principal.project_id, webhook_id, query.after, query.limit, query.status
        )
    )


@get(
    "/api/v1/webhooks/{webhook_id:str}/deliveries/{delivery_id:str}",
    opt=describe("A delivery and its tries", answers={200: DeliveryView}),
)
async def get_delivery(
    webhook_id: FromPath[str],
    delivery_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    return answer(await webhooks.delivery(principal.project_id, webhook_id, delivery_id))


@post(
    "/api/v1/webhooks/{webhook_id:str}/deliveries/{delivery_id:str}/replay",
    status_code=202,
    opt=describe(
        "Send a delivery that has ended again", answers={202: DeliveryView}, refuses=(409,)
    ),
)
async def replay_delivery(
    webhook_id: FromPath[str],
    delivery_id: FromPath[str],
    principal: NamedDependency[Principal],
    webhooks: NamedDependency[Webhooks],
) -> Response[bytes]:
    view = await webhooks.replay(principal.project_id, webhook_id, delivery_id)
    return answer(view, 202)


HANDLERS: list[ControllerRouterHandler] = [
    create_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook_secret,
    send_test_event,
    replay_deliveries,
    list_deliveries,
    get_delivery,
    replay_delivery,
]
