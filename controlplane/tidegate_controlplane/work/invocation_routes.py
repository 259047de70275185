"""The routes of invocations. They translate; the service decides."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.work import (
    Invocation,
    InvocationDeleted,
    InvocationList,
    InvocationState,
    RedriveAnswer,
    RedriveRequest,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query
from tidegate_controlplane.work.invocations import Invocations

AnyRequest = Request[Any, Any, Any]


class InvocationsQuery(PageQuery):
    status: InvocationState | None = None
    model: Annotated[str, Field(max_length=256)] | None = None


@get(
    "/v1/invocations",
    opt=describe("List invocations", query=InvocationsQuery, answers={200: InvocationList}),
)
async def list_invocations(
    request: AnyRequest,
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Newest first, without the lines of batches."""
    query = read_query(request, InvocationsQuery)
    return answer(
        await invocations.list(
            principal,
            after=query.after,
            limit=query.limit,
            status=query.status,
            model=query.model,
        )
    )


@get(
    "/v1/invocations/{invocation_id:str}",
    opt=describe("Describe an invocation", answers={200: Invocation}),
)
async def get_invocation(
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Its state, without its result."""
    return answer(await invocations.get(principal, invocation_id))


@delete(
    "/v1/invocations/{invocation_id:str}",
    status_code=200,
    opt=describe(
        "Delete the request and the result of a finished invocation",
        answers={200: InvocationDeleted},
        refuses=(409, 503),
    ),
)
async def delete_invocation(
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """409 before it is finished: cancel it first."""
    return answer(await invocations.delete(principal, invocation_id))


@post(
    "/v1/invocations/{invocation_id:str}/cancel",
    status_code=200,
    opt=describe("Cancel an invocation", answers={200: Invocation}),
)
async def cancel_invocation(
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """A finished one stays as it is."""
    return answer(await invocations.cancel(principal, invocation_id))


@post(
    "/v1/invocations/{invocation_id:str}/redrive",
    status_code=200,
    opt=describe("Run an invocation again", answers={200: Invocation}, refuses=(400, 409, 410)),
)
async def redrive_invocation(
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Of one that failed or is dead; one that waits or runs stays as it is."""
    return answer(await invocations.redrive(principal, invocation_id))


@post(
    "/v1/invocations/redrive",
    status_code=200,
    opt=describe("Run many invocations again", body=RedriveRequest, answers={200: RedriveAnswer}),
)
async def redrive_invocations(
    request: AnyRequest,
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """The oldest first, a page at a time."""
    wanted = await read_model(request, RedriveRequest, settings.limits.sync_body_bytes)
    return answer(await invocations.redrive_many(principal, wanted))


HANDLERS: list[ControllerRouterHandler] = [
    list_invocations,
    get_invocation,
    delete_invocation,
    cancel_invocation,
    redrive_invocation,
    redrive_invocations,
]
