"""The routes: they translate HTTP, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, cast

from litestar import Litestar, MediaType, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp
from pydantic import BaseModel

from tidegate.protocol.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    ModelList,
)
from tidegate.protocol.profile import ProfileRequest
from tidegate.protocol.rank import RerankRequest, ScoreRequest
from tidegate.protocol.replica import AdapterList, AdapterRequest, ReplicaState
from tidegate.protocol.tokenize import DetokenizeRequest, TokenizeRequest
from tidegate_runtime.errors import GenerationFailed, RequestRefused, RuntimeFault
from tidegate_runtime.server.body import Shape, read_body, read_shape
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.envelope import error_body, error_headers, error_status
from tidegate_runtime.server.front import Front
from tidegate_runtime.server.gate import Gate
from tidegate_runtime.server.intake import ARRIVAL, Arrival, Intake
from tidegate_runtime.server.replica import Replica
from tidegate_runtime.server.sagemaker import SageMaker
from tidegate_runtime.server.stream import EventStream, unless_disconnected

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, State]
_CLIENT_CLOSED = 499


@get("/healthz", media_type=MediaType.TEXT)
async def healthz() -> str:
    """The process is alive."""
    return "ok"


@get("/readyz")
async def readyz(state: State) -> Response[bytes]:
    """200 when requests are served, 503 with the state otherwise."""
    replica: Replica = state.replica
    ready = replica.lifecycle.state is ReplicaState.READY
    return _json(replica.ready(), 200 if ready else 503)


@get("/metrics")
async def metrics(state: State) -> Response[bytes]:
    """Prometheus' text format."""
    replica: Replica = state.replica
    return Response(
        replica.metrics.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
    )


@post("/drain")
async def drain(state: State) -> Response[bytes]:
    """Take no new work, finish what is in flight, then end the process."""
    replica: Replica = state.replica
    replica.lifecycle.drain()
    return _json(replica.ready(), 202)


@get("/v1/models")
async def models(state: State) -> Response[bytes]:
    """The model that is served, and its adapters."""
    replica: Replica = state.replica
    return _json(ModelList(data=replica.cards()))


@get("/adapters")
async def adapters(state: State) -> Response[bytes]:
    """Every adapter that requests may name."""
    replica: Replica = state.replica
    known = replica.adapters().list()
    return _json(AdapterList(adapters=known, max_adapters=replica.config.max_adapters))


@post("/adapters")
async def add_adapter(request: AnyRequest, state: State) -> Response[bytes]:
    """Load an adapter, or replace the one of its name."""
    replica: Replica = state.replica
    asked = await _read(request, AdapterRequest)
    return _json(await replica.adapters().add(asked.name, asked.source))


@delete("/adapters/{name:str}")
async def remove_adapter(name: str, state: State) -> None:
    """Forget an adapter."""
    replica: Replica = state.replica
    replica.adapters().remove(name)


@post("/profile", status_code=200)
async def profile(request: AnyRequest, state: State) -> ASGIApp:
    """Record where the engine's steps go for a while."""
    replica: Replica = state.replica
    asked = await _read(request, ProfileRequest)
    with replica.lifecycle.work():
        work = replica.profiler().profile(asked, replica.config.replica_id)
        return await _answer(request, work)


@post("/v1/chat/completions")
async def chat_completions(request: AnyRequest, state: State) -> ASGIApp:
    """Answer a chat, whole or streamed."""
    replica: Replica = state.replica
    asked = await _read(request, ChatCompletionRequest)
    service = replica.generator(asked.model)
    if asked.stream:
        return await _stream(request, service.stream_chat(asked, _caller(request)))
    return await _answer(request, service.chat(asked, _caller(request)))


@post("/v1/completions")
async def completions(request: AnyRequest, state: State) -> ASGIApp:
    """Continue prompts, whole or streamed."""
    replica: Replica = state.replica
    asked = await _read(request, CompletionRequest)
    service = replica.generator(asked.model)
    if asked.stream:
        return await _stream(request, service.stream_complete(asked, _caller(request)))
    return await _answer(request, service.complete(asked, _caller(request)))


@post("/v1/embeddings")
async def embeddings(request: AnyRequest, state: State) -> ASGIApp:
    """Turn texts into vectors."""
    replica: Replica = state.replica
    asked = await _read(request, EmbeddingRequest)
    return await _answer(request, replica.embedder(asked.model).embed(asked, _caller(request)))


@post("/v1/rerank")
async def rerank(request: AnyRequest, state: State) -> ASGIApp:
    """Rank documents for a query."""
    replica: Replica = state.replica
    asked = await _read(request, RerankRequest)
    return await _answer(request, replica.ranker(asked.model).rerank(asked, _caller(request)))


@post("/v1/score")
async def score(request: AnyRequest, state: State) -> ASGIApp:
    """Score pairs of texts."""
    replica: Replica = state.replica
    asked = await _read(request, ScoreRequest)
    return await _answer(request, replica.ranker(asked.model).score(asked, _caller(request)))


@post("/v1/tokenize")
async def tokenize(request: AnyRequest, state: State) -> ASGIApp:
    """Say what tokens a prompt or a chat is."""
    replica: Replica = state.replica
    asked = await _read(request, TokenizeRequest)
    return await _answer(request, replica.tokens(asked.model).tokenize(asked))


@post("/v1/detokenize")
async def detokenize(request: AnyRequest, state: State) -> ASGIApp:
    """Say what text tokens are."""
    replica: Replica = state.replica
    asked = await _read(request, DetokenizeRequest)
    return await _answer(request, replica.tokens(asked.model).detokenize(asked))


def create_app(replica: Replica, front: Front) -> ASGIApp:
    """The replica's HTTP application, with what stands before its routes."""
    app = Litestar(
        route_handlers=[
            healthz,
            readyz,
            metrics,
            drain,
            models,
            adapters,
            add_adapter,
            remove_adapter,
            profile,
            chat_completions,
            completions,
            embeddings,
            rerank,
            score,
            tokenize,
            detokenize,
        ],
        state=State({"replica": replica}),
        openapi_config=None,
        logging_config=None,
        exception_handlers={
            RuntimeFault: _on_fault,
            HTTPException: _on_http_error,
            Exception: _on_crash,
        },
    )
    work = Intake(app, replica)
    gate = Gate(work, front.token)
    return SageMaker(gate, work, replica.lifecycle) if front.sagemaker else gate


async def _read(request: AnyRequest, shape: type[Shape]) -> Shape:
    body = await read_body(request.headers.get("content-length"), request.stream())
    return await read_shape(body, shape)


async def _answer(request: AnyRequest, work: Coroutine[Any, Any, BaseModel]) -> ASGIApp:
    """Do the work as long as its caller is there, and answer with it as a whole."""
    made = await unless_disconnected(request.receive, work)
    return _gone() if made is None else _as_app(_json(made))


async def _stream(request: AnyRequest, chunks: AsyncGenerator[BaseModel]) -> ASGIApp:
    """Wait for the first chunk, so that what fails before it is an ordinary HTTP error."""
    first = await unless_disconnected(request.receive, anext(chunks))
    if first is None:
        await chunks.aclose()
        return _gone()
    return EventStream(first, chunks)


def _gone() -> ASGIApp:
    """What nobody reads: the caller left before its answer."""
    return _as_app(Response(b"", status_code=_CLIENT_CLOSED))


def _as_app(response: Response[bytes]) -> ASGIApp:
    """Litestar takes either from a handler declared ASGIApp, but its types do not say so."""
    return cast("ASGIApp", response)


def _caller(request: AnyRequest) -> Caller:
    arrival: Arrival = request.scope["state"][ARRIVAL]
    return Caller.of(request.headers, arrival.at_s, arrival.trace)


def _json(body: BaseModel, status: int = 200) -> Response[bytes]:
    return Response(
        body.model_dump_json().encode(),
        status_code=status,
        headers={"content-type": "application/json"},
    )


def _on_fault(request: AnyRequest, error: RuntimeFault) -> Response[bytes]:
    del request
    answer = _json(error_body(error), error_status(error))
    answer.headers.update(error_headers(error))
    return answer


def _on_http_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    message = f"{request.method} {request.url.path}: {error.detail}."
    refused = RequestRefused(message, status=error.status_code)
    answer = _on_fault(request, refused)
    answer.headers.update(error.headers or {})
    return answer


def _on_crash(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _on_fault(request, GenerationFailed("The replica failed; its log says why."))
