"""The routes of invocations. They translate; the service decides."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.openai import (
    ChatCompletion,
    Completion,
    EmbeddingResponse,
    ModelRequest,
)
from tidegate.protocol.rank import RerankResponse, ScoreResponse
from tidegate.protocol.work import (
    MAX_ATTEMPTS,
    MAX_PRIORITY,
    Invocation,
    InvocationDeleted,
    InvocationList,
    InvocationReference,
    InvocationState,
    RedriveAnswer,
    RedriveRequest,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model, stream
from tidegate_controlplane.web.openapi import (
    CONTENT,
    EVENT_STREAM,
    EVENTS,
    JSON,
    Header,
    describe,
)
from tidegate_controlplane.web.prefer import SCHEMA as WAIT
from tidegate_controlplane.web.prefer import wait_s
from tidegate_controlplane.web.query import PageQuery, Query, read_query
from tidegate_controlplane.web.range import last_event_id, range_start, ranged_head
from tidegate_controlplane.web.relay import STREAM_HEADERS, Head, Producer, Relay
from tidegate_controlplane.work.invocations import MAX_WAIT_S, Invocations
from tidegate_controlplane.work.submission import Terms

AnyRequest = Request[Any, Any, Any]
InvocationBody = ModelRequest | InvocationReference
ModelAnswer = ChatCompletion | Completion | EmbeddingResponse | RerankResponse | ScoreResponse


class InvocationsQuery(PageQuery):
    status: InvocationState | None = None
    model: Annotated[str, Field(max_length=256)] | None = None


class SubmitQuery(Query):
    timeout_s: float | None = Field(
        default=None, gt=0, le=3600, allow_inf_nan=False, description="run limit; 900 when absent"
    )
    expires_in_s: float = Field(
        default=86_400,
        gt=0,
        le=604_800,
        allow_inf_nan=False,
        description="it expires when it has not begun by then",
    )
    webhook: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="a webhook's id: it is told how this ends, whatever its events"
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=604_800,
        allow_inf_nan=False,
        description="not finished by then, it is given up",
    )
    priority: int = Field(
        default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="the higher runs first"
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=MAX_ATTEMPTS, description="3 when absent"
    )
    result_ttl_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="how long after its end the request and the result are kept; at most, and when "
        "absent, as long as the platform keeps any",
    )


@post(
    "/v1/invocations",
    status_code=202,
    opt=describe(
        "Accept a request durably",
        body=InvocationBody,
        query=SubmitQuery,
        answers={200: ModelAnswer, 202: Invocation},
        refuses=(404, 409, 410, 422, 503),
        headers={
            "Idempotency-Key": "the same key and body are the same invocation for 24 hours",
            "Prefer": Header(
                "`wait=N`: answer with the result if it is there within N seconds", WAIT
            ),
        },
    ),
)
async def create_invocation(
    request: AnyRequest,
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> ASGIApp:
    """The endpoint follows from the body's fields."""
    query = read_query(request, SubmitQuery)
    patience_s = wait_s(request.headers.get("prefer"), MAX_WAIT_S)
    terms = Terms(request.headers.get("idempotency-key"), **query.model_dump())
    body = stream(request, settings.limits.invocation_body_bytes)
    accepted, _ = await invocations.submit(principal, body, terms)
    if patience_s is not None:
        accepted = await invocations.wait(principal, accepted.id, patience_s)
    headers = {"location": f"/v1/invocations/{accepted.id}"}
    if patience_s is not None and accepted.status is InvocationState.SUCCEEDED:
        producer = _result(invocations, principal, accepted.id, 0, headers)
        return Relay(producer, stall_s=settings.limits.reader_stall_s)
    return Relay(_accepted(accepted, headers), stall_s=settings.limits.reader_stall_s)


async def _accepted(accepted: Invocation, headers: Mapping[str, str]) -> Producer:
    body = accepted.model_dump_json().encode()
    yield Head(202, JSON, {"content-length": str(len(body)), **headers})
    yield body


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


@get(
    "/v1/invocations/{invocation_id:str}/result",
    opt=describe(
        "Fetch the model's answer",
        answers={200: ModelAnswer, 206: CONTENT},
        refuses=(400, 409, 410, 416, 502, 503, 504),
        headers={"Range": "`bytes=N-`: go on from byte N, as after a connection that broke"},
    ),
)
async def get_invocation_result(
    request: AnyRequest,
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> ASGIApp:
    """409 before it is finished; the error when it did not succeed."""
    start = range_start(request.headers.get("range"))
    producer = _result(invocations, principal, invocation_id, start)
    return Relay(producer, stall_s=settings.limits.reader_stall_s)


async def _result(
    invocations: Invocations,
    principal: Principal,
    invocation_id: str,
    start: int,
    headers: Mapping[str, str] | None = None,
) -> Producer:
    result = await invocations.open_result(principal, invocation_id, start)
    async with aclosing(result.pieces):
        yield ranged_head(JSON, result.total, start, headers)
        async for piece in result.pieces:
            yield piece


@get(
    "/v1/invocations/{invocation_id:str}/events",
    opt=describe(
        "Follow an invocation to its end",
        answers={200: EVENTS},
        refuses=(400, 503),
        headers={
            "Last-Event-ID": Header(
                "the `id` of the last state that was seen",
                {"type": "string", "pattern": "^[0-9]{1,15}$"},
            )
        },
    ),
)
async def get_invocation_events(
    request: AnyRequest,
    invocation_id: FromPath[str],
    invocations: NamedDependency[Invocations],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> ASGIApp:
    """States, and while it runs here: text and progress. Each event is an `InvocationEvent`."""
    after = last_event_id(request.headers.get("last-event-id"))
    producer = _events(invocations, principal, invocation_id, after)
    return Relay(producer, stall_s=settings.limits.reader_stall_s)


async def _events(
    invocations: Invocations, principal: Principal, invocation_id: str, after: int | None
) -> Producer:
    events = await invocations.events(principal, invocation_id, after)
    async with aclosing(events):
        yield Head(200, EVENT_STREAM, STREAM_HEADERS)
        async for event in events:
            yield event


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
    create_invocation,
    list_invocations,
    get_invocation,
    get_invocation_result,
    get_invocation_events,
    delete_invocation,
    cancel_invocation,
    redrive_invocation,
    redrive_invocations,
]
