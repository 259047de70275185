"""The route by which a request becomes an invocation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.types import ASGIApp, ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.openai import ModelRequest
from tidegate.protocol.work import (
    MAX_ATTEMPTS,
    MAX_PRIORITY,
    Invocation,
    InvocationReference,
    InvocationState,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.web.body import stream
from tidegate_controlplane.web.openapi import JSON, Header, describe
from tidegate_controlplane.web.prefer import SCHEMA as WAIT
from tidegate_controlplane.web.prefer import wait_s
from tidegate_controlplane.web.query import Query, read_query
from tidegate_controlplane.web.relay import Head, Producer, Relay
from tidegate_controlplane.work.invocations import MAX_WAIT_S, Invocations
from tidegate_controlplane.work.result_routes import ModelAnswer, result_pieces
from tidegate_controlplane.work.submission import Terms

AnyRequest = Request[Any, Any, Any]
InvocationBody = ModelRequest | InvocationReference


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
        producer = result_pieces(invocations, principal, accepted.id, 0, headers)
        return Relay(producer, stall_s=settings.limits.reader_stall_s)
    return Relay(_accepted(accepted, headers), stall_s=settings.limits.reader_stall_s)


async def _accepted(accepted: Invocation, headers: Mapping[str, str]) -> Producer:
    body = accepted.model_dump_json().encode()
    yield Head(202, JSON, {"content-length": str(len(body)), **headers})
    yield body


HANDLERS: list[ControllerRouterHandler] = [
    create_invocation,
]
