"""What the routes know of the process they run in."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.protocol.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Completion,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResponse,
    ModelCard,
)
from tidegate.protocol.profile import EngineProfile, ProfileRequest
from tidegate.protocol.rank import RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from tidegate.protocol.replica import ReplicaConfig, ReplicaReady
from tidegate.protocol.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from tidegate.telemetry.traces import NO_TRACES, Tracer
from tidegate_runtime.adapters.pool import AdapterPool
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.metrics import Metrics


@dataclass(frozen=True)
class Pressure:
    """How full a service is: the share of KV blocks in use, and the sequences without room."""

    kv_used: float = 0.0
    waiting: int = 0


class ProfileService(Protocol):
    """Records a running engine (`server.profiler`)."""

    async def profile(self, request: ProfileRequest, replica_id: str) -> EngineProfile: ...


class TokenService(Protocol):
    """A loaded model's tokenizer (`server.tokens`)."""

    async def tokenize(self, request: TokenizeRequest) -> TokenizeResponse: ...

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResponse: ...


class GenerateService(Protocol):
    """A loaded model that generates (`server.generator`), without importing torch to say so."""

    context_tokens: int
    kv_cache_tokens: int
    adapters: AdapterPool | None

    @property
    def profiler(self) -> ProfileService: ...

    @property
    def tokens(self) -> TokenService: ...

    def pressure(self) -> Pressure: ...

    async def chat(self, request: ChatCompletionRequest, caller: Caller) -> ChatCompletion: ...

    def stream_chat(
        self, request: ChatCompletionRequest, caller: Caller
    ) -> AsyncGenerator[ChatCompletionChunk]: ...

    async def complete(self, request: CompletionRequest, caller: Caller) -> Completion: ...

    def stream_complete(
        self, request: CompletionRequest, caller: Caller
    ) -> AsyncGenerator[Completion]: ...


class EmbedService(Protocol):
    """A loaded model that embeds (`server.embeddings`)."""

    context_tokens: int
    kv_cache_tokens: int

    def pressure(self) -> Pressure: ...

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> EmbeddingResponse: ...


class RankService(Protocol):
    """A loaded model that scores pairs of texts (`server.rank`)."""

    context_tokens: int
    kv_cache_tokens: int

    @property
    def tokens(self) -> TokenService: ...

    def pressure(self) -> Pressure: ...

    async def rerank(self, request: RerankRequest, caller: Caller) -> RerankResponse: ...

    async def score(self, request: ScoreRequest, caller: Caller) -> ScoreResponse: ...


@dataclass
class Replica:
    """One process: its configuration, its state, and the service once it is loaded."""

    config: ReplicaConfig
    lifecycle: Lifecycle
    metrics: Metrics
    tracer: Tracer = NO_TRACES
    generate: GenerateService | None = None
    embed: EmbedService | None = None
    rank: RankService | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def ready(self) -> ReplicaReady:
        """The body of /readyz."""
        service = self.generate or self.rank
        pressure = service.pressure() if service else Pressure()
        return ReplicaReady(
            replica_id=self.config.replica_id,
            state=self.lifecycle.state,
            context_tokens=service.context_tokens if service else 0,
            max_sequences=self.config.max_sequences if service else 0,
            kv_cache_tokens=service.kv_cache_tokens if service else 0,
            in_flight=self.lifecycle.in_flight,
            kv_used=pressure.kv_used,
            waiting=pressure.waiting,
            message=self.lifecycle.message,
        )

    def generator(self, model: str) -> GenerateService:
        """The service for generation. Raises RequestRefused for another model or task."""
        self._check_model(model)
        if self.generate is None:
            raise self._wrong_task("generates no text", self._doors())
        return self.generate

    def embedder(self, model: str) -> EmbedService:
        """The service for embeddings. Raises RequestRefused for another model or task."""
        self._check_model(model)
        if self.embed is None:
            raise self._wrong_task("makes no embeddings", self._doors())
        return self.embed

    def ranker(self, model: str) -> RankService:
        """The service for ranks and scores. Raises RequestRefused for another model or task."""
        self._check_model(model)
        if self.rank is None:
            raise self._wrong_task("scores no pairs of texts", self._doors())
        return self.rank

    def tokens(self, model: str) -> TokenService:
        """The tokenizer, which every model has. Raises RequestRefused for another model."""
        self._check_model(model)
        service = self.generate or self.rank
        assert service is not None  # no request is taken before one is loaded
        return service.tokens

    def _doors(self) -> str:
        if self.rank is None:
            return "/v1/chat/completions or /v1/completions"
        return f"{'/v1/embeddings, ' if self.embed else ''}/v1/rerank or /v1/score"

    def adapters(self) -> AdapterPool:
        """The adapters. Raises RequestRefused where the model takes none."""
        if self.generate is None or self.generate.adapters is None:
            raise RequestRefused(
                f"The model {self.config.model_name!r} takes no adapters; use one that generates.",
                code="no_adapters",
            )
        return self.generate.adapters

    def profiler(self) -> ProfileService:
        """What records the engine. Raises RequestRefused where the model has none."""
        if self.generate is None:
            raise RequestRefused(
                f"The model {self.config.model_name!r} runs no steps; profile one that generates.",
                code="wrong_task",
            )
        return self.generate.profiler

    def cards(self) -> list[ModelCard]:
        """What requests may say as their `model`: the model, then its adapters."""
        model = self.config.model_name
        cards = [ModelCard(id=model, created=self.created)]
        if self.generate is not None and self.generate.adapters is not None:
            cards += [
                ModelCard(
                    id=f"{model}:{adapter.name}",
                    created=self.created,
                    root=adapter.source,
                    parent=model,
                )
                for adapter in self.generate.adapters.list()
            ]
        return cards

    def _check_model(self, model: str) -> None:
        if model == self.config.model_name:
            return
        cards = self.cards()
        if model not in {card.id for card in cards}:
            raise RequestRefused(
                f"The model {model!r} does not exist here; this replica serves "
                f"{', '.join(repr(card.id) for card in cards)}.",
                param="model",
                code="model_not_found",
                status=404,
            )

    def _wrong_task(self, what: str, remedy: str) -> RequestRefused:
        return RequestRefused(
            f"The model {self.config.model_name!r} {what}; use {remedy}, or another model.",
            param="model",
            code="wrong_task",
        )
