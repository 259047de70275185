"""The OpenAI-compatible routes that do a model's work now. They translate; the gateway decides."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, ControllerRouterHandler
from pydantic import BaseModel

from tidegate.protocol.openai import (
    ChatCompletion,
    ChatCompletionRequest,
    Completion,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResponse,
    ModelCard,
    ModelList,
)
from tidegate.protocol.rank import RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from tidegate.protocol.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
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


@post(
    "/v1/chat/completions",
    status_code=200,
    opt=describe(
        "Answer a conversation",
        body=ChatCompletionRequest,
        answers={200: (ChatCompletion, EVENTS)},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_chat_completion(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Chat, streamed or not."""
    return await _work(request, gateway, "/v1/chat/completions")


@post(
    "/v1/completions",
    status_code=200,
    opt=describe(
        "Continue a text",
        body=CompletionRequest,
        answers={200: (Completion, EVENTS)},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_completion(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Completions, streamed or not."""
    return await _work(request, gateway, "/v1/completions")


@post(
    "/v1/embeddings",
    status_code=200,
    opt=describe(
        "Embed texts",
        body=EmbeddingRequest,
        answers={200: EmbeddingResponse},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_embeddings(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Embeddings."""
    return await _work(request, gateway, "/v1/embeddings")


@post(
    "/v1/rerank",
    status_code=200,
    opt=describe(
        "Rank documents for a query",
        body=RerankRequest,
        answers={200: RerankResponse},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_rerank(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Documents, the most relevant first."""
    return await _work(request, gateway, "/v1/rerank")


@post(
    "/v1/score",
    status_code=200,
    opt=describe(
        "Score pairs of texts",
        body=ScoreRequest,
        answers={200: ScoreResponse},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_score(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Scores, in the order of the pairs."""
    return await _work(request, gateway, "/v1/score")


@post(
    "/v1/tokenize",
    status_code=200,
    opt=describe(
        "Count and list the tokens of a prompt or a conversation",
        body=TokenizeRequest,
        answers={200: TokenizeResponse},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_tokens(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """Tokens, as the model would read them."""
    return await _work(request, gateway, "/v1/tokenize")


@post(
    "/v1/detokenize",
    status_code=200,
    opt=describe(
        "Turn tokens into text",
        body=DetokenizeRequest,
        answers={200: DetokenizeResponse},
        refuses=REFUSES,
        headers=HEADERS,
    ),
)
async def create_text(
    request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]
) -> ASGIApp:
    """The text of tokens."""
    return await _work(request, gateway, "/v1/detokenize")


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
    create_chat_completion,
    create_completion,
    create_embeddings,
    create_rerank,
    create_score,
    create_tokens,
    create_text,
    list_models,
    get_model,
]
