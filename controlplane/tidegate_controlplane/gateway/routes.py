"""The OpenAI-compatible routes that do a model's work now. They translate; the gateway decides."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp, ControllerRouterHandler
from pydantic import BaseModel

from tidegate.protocol.openai import (
    ChatCompletion,
    Completion,
    EmbeddingResponse,
    ModelCard,
    ModelList,
)
from tidegate.protocol.rank import RerankResponse, ScoreResponse
from tidegate.protocol.tokenize import ONLINE_REQUESTS, DetokenizeResponse, TokenizeResponse
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.gateway.admission import admit, find
from tidegate_controlplane.gateway.catalog import Adapter, Catalog, Served
from tidegate_controlplane.gateway.gateway import Caller, Gateway
from tidegate_controlplane.web import context
from tidegate_controlplane.web.body import read_json
from tidegate_controlplane.web.context import principal_of, request_id_of
from tidegate_controlplane.web.openapi import EVENTS, JSON, Header, describe
from tidegate_controlplane.web.prefer import SCHEMA as WAIT
from tidegate_controlplane.web.prefer import wait_s

REFUSES = (404, 502, 503, 504)
HEADERS = {
    "Prefer": Header("`wait=N`: be held for at most N seconds while no replica is ready", WAIT)
}


def working(operation: str, path: str, summary: str, answer: Any) -> HTTPRouteHandler:
    """The route that has a replica answer `path`, whose body is of `ONLINE_REQUESTS`.

    `operation` is its name in the OpenAPI document, `answer` its shape, or several.
    """

    async def handle(request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]) -> ASGIApp:
        return await _work(request, gateway, path)

    handle.__name__ = operation
    opt = describe(
        summary,
        body=ONLINE_REQUESTS[path],
        answers={200: answer},
        refuses=REFUSES,
        headers=HEADERS,
    )
    return post(path, status_code=200, opt=opt)(handle)


WORKING = [
    working(
        "create_chat_completion",
        "/v1/chat/completions",
        "Answer a conversation",
        (ChatCompletion, EVENTS),
    ),
    working("create_completion", "/v1/completions", "Continue a text", (Completion, EVENTS)),
    working("create_embeddings", "/v1/embeddings", "Embed texts", EmbeddingResponse),
    working("create_rerank", "/v1/rerank", "Rank documents for a query", RerankResponse),
    working("create_score", "/v1/score", "Score pairs of texts", ScoreResponse),
    working(
        "create_tokens",
        "/v1/tokenize",
        "Count and list the tokens of a prompt or a conversation",
        TokenizeResponse,
    ),
    working("create_text", "/v1/detokenize", "Turn tokens into text", DetokenizeResponse),
]


@get(
    "/v1/models",
    opt=describe("List the deployments of the key's project", answers={200: ModelList}),
    sync_to_thread=False,
)
def list_models(
    catalog: NamedDependency[Catalog], principal: NamedDependency[Principal]
) -> Response[bytes]:
    """Every deployment, whatever its mode, and its adapters after it."""
    cards = [
        card
        for served in catalog.of_project(principal.project_id)
        for card in (_card(served), *(_adapter_card(served, each) for each in served.adapters))
    ]
    return _json(ModelList(data=cards))


@get(
    "/v1/models/{model:path}",
    opt=describe("Describe one deployment", answers={200: ModelCard}),
    sync_to_thread=False,
)
def get_model(
    model: FromPath[str], catalog: NamedDependency[Catalog], principal: NamedDependency[Principal]
) -> Response[bytes]:
    """One deployment or adapter, by its name."""
    served = find(catalog, principal.project_id, model.removeprefix("/"))
    return _json(_adapter_card(served, served.adapter) if served.adapter else _card(served))


async def _work(request: Request[Any, Any, Any], gateway: Gateway, path: str) -> ASGIApp:
    limits, principal = gateway.limits, principal_of(request)
    began_s, request_id = gateway.clock.monotonic(), request_id_of(request)
    hold_s = wait_s(request.headers.get("prefer"), limits.hold_s) or limits.hold_s
    body = await read_json(request, limits.sync_body_bytes, limits.json_depth)
    admitted = admit(gateway.catalog, principal.project_id, path, body)
    context.remember_deployment(request.scope["state"], admitted.served.name)
    operation = gateway.watch.operation(admitted.served, path, request.headers, request_id, began_s)
    caller = Caller(principal, request_id, hold_s, operation)
    return gateway.answer(admitted, caller)


def _card(served: Served) -> ModelCard:
    return ModelCard(id=served.name, created=int(served.created_at.timestamp()))


def _adapter_card(served: Served, adapter: Adapter) -> ModelCard:
    card = _card(served)
    name = served.model_of(adapter)
    return card.model_copy(update={"id": name, "root": adapter.source, "parent": served.name})


def _json(content: BaseModel) -> Response[bytes]:
    return Response(content.model_dump_json().encode(), media_type=JSON)


HANDLERS: list[ControllerRouterHandler] = [
    *WORKING,
    list_models,
    get_model,
]
