"""The adapters that a deployment serves: add and remove, without new replicas."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate.protocol.resources import AdapterSource, DeploymentView
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.deployments.rules import etag
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe

AnyRequest = Request[Any, Any, Any]


@put(
    "/api/v1/deployments/{name:str}/adapters/{adapter:str}",
    status_code=200,
    opt=describe(
        "Serve a LoRA adapter as `name:adapter`, without new replicas",
        body=AdapterSource,
        answers={200: DeploymentView},
        refuses=(409,),
    ),
)
async def put_adapter(
    request: AnyRequest,
    name: FromPath[str],
    adapter: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    wanted = await read_model(request, AdapterSource, DECLARATION_BYTES)
    view = await deployments.add_adapter(principal.project_id, name, adapter, wanted.source)
    return answer(view, headers={"ETag": etag(view)})


@delete(
    "/api/v1/deployments/{name:str}/adapters/{adapter:str}",
    status_code=200,
    opt=describe(
        "Serve a LoRA adapter no longer", answers={200: DeploymentView}, refuses=(404, 409)
    ),
)
async def delete_adapter(
    name: FromPath[str],
    adapter: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    view = await deployments.remove_adapter(principal.project_id, name, adapter)
    return answer(view, headers={"ETag": etag(view)})


HANDLERS: list[ControllerRouterHandler] = [
    put_adapter,
    delete_adapter,
]
