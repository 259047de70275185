"""The routes of batches. They translate; the service decides."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate.protocol.work import (
    BatchList,
    BatchObject,
    BatchRequest,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query
from tidegate_controlplane.work.batches import Batches

AnyRequest = Request[Any, Any, Any]


@post(
    "/v1/batches",
    status_code=200,
    opt=describe(
        "Begin a batch over an uploaded file", body=BatchRequest, answers={200: BatchObject}
    ),
)
async def create_batch(
    request: AnyRequest,
    batches: NamedDependency[Batches],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """Its lines are read afterwards."""
    wanted = await read_model(request, BatchRequest, settings.limits.sync_body_bytes)
    return answer(await batches.create(principal, wanted))


@get("/v1/batches", opt=describe("List batches", query=PageQuery, answers={200: BatchList}))
async def list_batches(
    request: AnyRequest, batches: NamedDependency[Batches], principal: NamedDependency[Principal]
) -> Response[bytes]:
    """Newest first."""
    query = read_query(request, PageQuery)
    return answer(await batches.list(principal, after=query.after, limit=query.limit))


@get("/v1/batches/{batch_id:str}", opt=describe("Describe a batch", answers={200: BatchObject}))
async def get_batch(
    batch_id: FromPath[str],
    batches: NamedDependency[Batches],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Its state, and how many of its lines have ended."""
    return answer(await batches.get(principal, batch_id))


@post(
    "/v1/batches/{batch_id:str}/cancel",
    status_code=200,
    opt=describe("Cancel a batch", answers={200: BatchObject}),
)
async def cancel_batch(
    batch_id: FromPath[str],
    batches: NamedDependency[Batches],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """A finished one stays as it is."""
    return answer(await batches.cancel(principal, batch_id))


@post(
    "/v1/batches/{batch_id:str}/retry",
    status_code=200,
    opt=describe(
        "Run the lines again that a batch did not answer",
        answers={200: BatchObject},
        refuses=(409,),
    ),
)
async def retry_batch(
    batch_id: FromPath[str],
    batches: NamedDependency[Batches],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """They are a new batch; the old one and its files stay as they are."""
    return answer(await batches.retry(principal, batch_id))


HANDLERS: list[ControllerRouterHandler] = [
    create_batch,
    list_batches,
    get_batch,
    cancel_batch,
    retry_batch,
]
