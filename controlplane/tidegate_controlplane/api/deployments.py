"""Deployments: plan, apply, read, scale, wake and delete."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.resources import DeploymentView, Page, PlanView, ScaleRequest
from tidegate.spec import Mode
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import BODY, DECLARATION_BYTES, read_declaration
from tidegate_controlplane.deployments.rules import etag
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.errors import BadRequest
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import Header, describe
from tidegate_controlplane.web.query import PageQuery, read_query

AnyRequest = Request[Any, Any, Any]
IF_MATCH = {"If-Match": "the ETag that must still hold, or the request is refused with 412"}


class DeploymentsQuery(PageQuery):
    mode: Mode | None = None
    label: Annotated[str, Field(max_length=320)] | None = Field(
        default=None, description="`key=value`"
    )


@post(
    "/api/v1/plans",
    status_code=200,
    opt=describe(
        "What applying a declaration would change and run; nothing is touched",
        body=BODY,
        answers={200: PlanView},
        refuses=(409,),
    ),
)
async def create_plan(
    request: AnyRequest,
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    spec = await read_declaration(request)
    return answer(await deployments.plan(principal.project_id, spec))


@put(
    "/api/v1/deployments/{name:str}",
    opt=describe(
        "Declare a deployment; the same declaration twice changes nothing",
        body=BODY,
        answers={200: DeploymentView, 201: DeploymentView},
        refuses=(409, 412),
        headers={
            **IF_MATCH,
            "If-None-Match": Header(
                "refused with 412 when the name is taken", {"type": "string", "enum": ["*"]}
            ),
        },
    ),
)
async def put_deployment(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    only_new = _only_new(request)
    spec = await read_declaration(request, name)
    view, created = await deployments.apply(
        principal.project_id,
        spec,
        if_match=request.headers.get("if-match"),
        only_new=only_new,
    )
    return answer(view, 201 if created else 200, {"ETag": etag(view)})


@get(
    "/api/v1/deployments",
    opt=describe(
        "List the deployments, oldest first",
        query=DeploymentsQuery,
        answers={200: Page[DeploymentView]},
    ),
)
async def list_deployments(
    request: AnyRequest,
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, DeploymentsQuery)
    page = await deployments.read.page(
        principal.project_id, query.after, query.limit, query.mode, _label(query.label)
    )
    return answer(page)


@get(
    "/api/v1/deployments/{name:str}",
    opt=describe("Read a deployment", answers={200: DeploymentView}),
)
async def get_deployment(
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    view = await deployments.read.get(principal.project_id, name)
    return answer(view, headers={"ETag": etag(view)})


@delete(
    "/api/v1/deployments/{name:str}",
    status_code=202,
    opt=describe(
        "Delete a deployment: its replicas drain first",
        answers={202: DeploymentView},
        refuses=(412,),
        headers=IF_MATCH,
    ),
)
async def delete_deployment(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    view = await deployments.delete(
        principal.project_id, name, if_match=request.headers.get("if-match")
    )
    return answer(view, 202)


@post(
    "/api/v1/deployments/{name:str}/scale",
    status_code=200,
    opt=describe(
        "Change the replica bounds",
        body=ScaleRequest,
        answers={200: DeploymentView},
        refuses=(409,),
    ),
)
async def scale_deployment(
    request: AnyRequest,
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    wanted = await read_model(request, ScaleRequest, DECLARATION_BYTES)
    view = await deployments.scale(principal.project_id, name, wanted)
    return answer(view, headers={"ETag": etag(view)})


@post(
    "/api/v1/deployments/{name:str}/wake",
    status_code=202,
    opt=describe(
        "Bring a deployment up, and try a failed one again",
        answers={202: DeploymentView},
        refuses=(409,),
    ),
)
async def wake_deployment(
    name: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    return answer(await deployments.wake(principal.project_id, name), 202)


def _only_new(request: AnyRequest) -> bool:
    condition = request.headers.get("if-none-match")
    if condition not in (None, "*"):
        raise BadRequest(
            f"If-None-Match: only '*' is honoured, got {condition[:80]!r}", param="If-None-Match"
        )
    return condition == "*"


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise BadRequest(f"label: {text!r} is not key=value", param="label")
    return key, value


HANDLERS: list[ControllerRouterHandler] = [
    create_plan,
    put_deployment,
    list_deployments,
    get_deployment,
    delete_deployment,
    scale_deployment,
    wake_deployment,
]
