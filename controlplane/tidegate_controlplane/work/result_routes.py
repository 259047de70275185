"""The routes by which an invocation is followed, and its answer fetched."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, ControllerRouterHandler

from tidegate.protocol.openai import ChatCompletion, Completion, EmbeddingResponse
from tidegate.protocol.rank import RerankResponse, ScoreResponse
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.web.openapi import CONTENT, EVENT_STREAM, EVENTS, JSON, Header, describe
from tidegate_controlplane.web.range import last_event_id, range_start, ranged_head
from tidegate_controlplane.web.relay import STREAM_HEADERS, Head, Producer, Relay
from tidegate_controlplane.work.invocations import Invocations

AnyRequest = Request[Any, Any, Any]
ModelAnswer = ChatCompletion | Completion | EmbeddingResponse | RerankResponse | ScoreResponse


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
    producer = result_pieces(invocations, principal, invocation_id, start)
    return Relay(producer, stall_s=settings.limits.reader_stall_s)


async def result_pieces(
    invocations: Invocations,
    principal: Principal,
    invocation_id: str,
    start: int,
    headers: Mapping[str, str] | None = None,
) -> Producer:
    """The model's answer from byte `start` on, with `headers` before it."""
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


HANDLERS: list[ControllerRouterHandler] = [
    get_invocation_result,
    get_invocation_events,
]
