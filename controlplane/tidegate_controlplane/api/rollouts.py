"""Rollouts: look, promote, abort; and rolling a deployment back."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.resources import DeploymentView, Page, RollbackRequest, RolloutView
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.api.deployments import IF_MATCH
from tidegate_controlplane.deployments.rules import etag
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query

AnyRequest = Request[Any, Any, Any]


class RolloutsQuery(PageQuery):
    deployment: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="only those of the deployment with this name"
    )


@get(
    "/api/v1/deployments/{name:str}/rollout",
    opt=describe("The present rollout, or the last one", answers={200: RolloutView}),
)
async def get_rollout(
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    return answer(await deployments.rollouts.newest(principal.project_id, name))


@get(
    "/api/v1/rollouts",
    opt=describe(
        "The rollouts, oldest first", query=RolloutsQuery, answers={200: Page[RolloutView]}
    ),
)
async def list_rollouts(
    request: AnyRequest,
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, RolloutsQuery)
    return answer(
        await deployments.rollouts.page(
            principal.project_id, query.deployment, query.after, query.limit
        )
    )


@post(
    "/api/v1/rollouts/{rollout_id:str}/promote",
    status_code=202,
    opt=describe(
        "Let the new revision take all now, whatever its steps",
        answers={202: RolloutView},
        refuses=(409,),
    ),
)
async def promote_rollout(
    rollout_id: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    view = await deployments.rollouts.request(principal.project_id, rollout_id, "promote")
    return answer(view, 202)


@post(
    "/api/v1/rollouts/{rollout_id:str}/abort",
    status_code=202,
    opt=describe(
        "Send the traffic back to the former revision",
        answers={202: RolloutView},
        refuses=(409,),
    ),
)
async def abort_rollout(
    rollout_id: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    view = await deployments.rollouts.request(principal.project_id, rollout_id, "abort")
    return answer(view, 202)


@post(
    "/api/v1/deployments/{name:str}/rollback",
    status_code=202,
    opt=describe(
        "Declare a former revision again, at once and as a new generation",
        body=RollbackRequest,
        answers={202: DeploymentView},
        refuses=(409, 412),
        headers=IF_MATCH,
    ),
)
async def rollback_deployment(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    wanted = await read_model(request, RollbackRequest, DECLARATION_BYTES)
    view = await deployments.rollback(
        principal.project_id, name, wanted, if_match=request.headers.get("if-match")
    )
    return answer(view, 202, {"ETag": etag(view)})


HANDLERS: list[ControllerRouterHandler] = [
    get_rollout,
    list_rollouts,
    promote_rollout,
    abort_rollout,
    rollback_deployment,
]
