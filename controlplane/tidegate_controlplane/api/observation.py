"""What a deployment is made of, what happened to it, and what its replicas wrote."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.resources import (
    DecisionView,
    EventView,
    LogPage,
    Page,
    ReplicaView,
    RevisionView,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, Query, read_query

AnyRequest = Request[Any, Any, Any]


class EventsQuery(PageQuery):
    wait_s: float = Field(
        default=0.0, ge=0, le=30, description="wait this long for an event when there is none"
    )


class LogsQuery(Query):
    cursor: Annotated[str, Field(max_length=8192)] | None = Field(
        default=None, description="the `cursor` of the page before"
    )
    limit: int = Field(default=200, ge=1, le=1000)


@get(
    "/api/v1/deployments/{name:str}/revisions",
    opt=describe(
        "The resolved plans, oldest first", query=PageQuery, answers={200: Page[RevisionView]}
    ),
)
async def list_revisions(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(
        await deployments.read.revisions(principal.project_id, name, query.after, query.limit)
    )


@get(
    "/api/v1/deployments/{name:str}/replicas",
    opt=describe("The replicas, oldest first", query=PageQuery, answers={200: Page[ReplicaView]}),
)
async def list_replicas(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(
        await deployments.read.replicas(principal.project_id, name, query.after, query.limit)
    )


@get(
    "/api/v1/deployments/{name:str}/events",
    opt=describe("What happened, oldest first", query=EventsQuery, answers={200: Page[EventView]}),
)
async def list_events(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, EventsQuery)
    page = await deployments.read.events(
        principal.project_id, name, query.after, query.limit, query.wait_s
    )
    return answer(page)


@get(
    "/api/v1/deployments/{name:str}/decisions",
    opt=describe(
        "What the autoscaler decided and why, oldest first",
        query=PageQuery,
        answers={200: Page[DecisionView]},
    ),
)
async def list_decisions(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(
        await deployments.read.decisions(principal.project_id, name, query.after, query.limit)
    )


@get(
    "/api/v1/deployments/{name:str}/logs",
    opt=describe(
        "What the replicas wrote, oldest replica first", query=LogsQuery, answers={200: LogPage}
    ),
)
async def read_logs(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, LogsQuery)
    return answer(
        await deployments.read.logs(principal.project_id, name, query.cursor, query.limit)
    )


HANDLERS: list[ControllerRouterHandler] = [
    list_revisions,
    list_replicas,
    list_events,
    list_decisions,
    read_logs,
]
