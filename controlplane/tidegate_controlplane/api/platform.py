"""Models, API keys, usage and the platform itself."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate.protocol.resources import (
    ApiKeyCreated,
    ApiKeyRequest,
    ApiKeyView,
    ModelView,
    Page,
    UsageView,
    VersionView,
)
from tidegate.version import VERSION
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query

AnyRequest = Request[Any, Any, Any]


@get("/api/v1/version", opt=describe("The version that runs", answers={200: VersionView}))
async def get_version() -> Response[bytes]:
    return answer(VersionView(version=VERSION))


@get(
    "/api/v1/models",
    opt=describe(
        "The models that were ever declared, oldest first",
        query=PageQuery,
        answers={200: Page[ModelView]},
    ),
)
async def list_models(
    request: AnyRequest,
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(await deployments.read.models(principal.project_id, query.after, query.limit))


@get(
    "/api/v1/models/{model_id:str}",
    opt=describe("A model and its versions", answers={200: ModelView}),
)
async def get_model(
    model_id: FromPath[str],
    principal: NamedDependency[Principal],
    deployments: NamedDependency[Deployments],
) -> Response[bytes]:
    return answer(await deployments.read.model(principal.project_id, model_id))


@post(
    "/api/v1/api-keys",
    status_code=201,
    opt=describe(
        "Create an API key; its secret is shown this once",
        body=ApiKeyRequest,
        answers={201: ApiKeyCreated},
    ),
)
async def create_key(
    request: AnyRequest, principal: NamedDependency[Principal], keys: NamedDependency[KeyService]
) -> Response[bytes]:
    wanted = await read_model(request, ApiKeyRequest, DECLARATION_BYTES)
    return answer(await keys.create(principal.project_id, wanted), 201)


@get(
    "/api/v1/api-keys",
    opt=describe("List the API keys", query=PageQuery, answers={200: Page[ApiKeyView]}),
)
async def list_keys(
    request: AnyRequest, principal: NamedDependency[Principal], keys: NamedDependency[KeyService]
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(await keys.list(principal.project_id, query.after, query.limit))


@delete(
    "/api/v1/api-keys/{key_id:str}",
    status_code=200,
    opt=describe("Revoke an API key", answers={200: ApiKeyView}, refuses=(409,)),
)
async def revoke_key(
    key_id: FromPath[str], principal: NamedDependency[Principal], keys: NamedDependency[KeyService]
) -> Response[bytes]:
    return answer(await keys.revoke(principal.project_id, key_id))


@get(
    "/api/v1/usage",
    opt=describe(
        "Requests and tokens by deployment", query=PageQuery, answers={200: Page[UsageView]}
    ),
)
async def list_usage(
    request: AnyRequest, principal: NamedDependency[Principal], usage: NamedDependency[UsageBook]
) -> Response[bytes]:
    query = read_query(request, PageQuery)
    return answer(await usage.summary(principal.project_id, query.after, query.limit))


HANDLERS: list[ControllerRouterHandler] = [
    get_version,
    list_models,
    get_model,
    create_key,
    list_keys,
    revoke_key,
    list_usage,
]
