"""Profiles: where the steps of a deployment's replica go."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate.protocol.profile import DeploymentProfileRequest, EngineProfile
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.gateway.profiler import Profiler
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.context import request_id_of
from tidegate_controlplane.web.openapi import describe


@post(
    "/api/v1/deployments/{name:str}/profile",
    status_code=200,
    opt=describe(
        "Record where the steps of a ready replica go for a while",
        body=DeploymentProfileRequest,
        answers={200: EngineProfile},
        refuses=(409,),
    ),
)
async def profile_deployment(
    request: Request[Any, Any, Any],
    name: FromPath[str],
    principal: NamedDependency[Principal],
    profiler: NamedDependency[Profiler],
) -> Response[bytes]:
    wanted = await read_model(request, DeploymentProfileRequest, DECLARATION_BYTES)
    profile = await profiler.profile(principal.project_id, name, wanted, request_id_of(request))
    return Response(profile, media_type="application/json")


HANDLERS: list[ControllerRouterHandler] = [profile_deployment]
