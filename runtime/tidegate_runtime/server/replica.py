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
)
from tidegate.protocol.replica import ReplicaConfig, ReplicaReady
from tidegate.telemetry.traces import NO_TRACES, Tracer
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.metrics import Metrics


@dataclass(frozen=True)
class Pressure:
    """How full a service is: the share of KV blocks in use, and the sequences without room."""

    kv_used: float = 0.0
    waiting: int = 0


class GenerateService(Protocol):
    """A loaded model that generates (`server.generator`), without importing torch to say so."""

    context_tokens: int
    kv_cache_tokens: int

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


@dataclass
class Replica:
    """One process: its configuration, its state, and the service once it is loaded."""

    config: ReplicaConfig
    lifecycle: Lifecycle
    metrics: Metrics
    tracer: Tracer = NO_TRACES
    generate: GenerateService | None = None
    embed: EmbedService | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def ready(self) -> ReplicaReady:
        """The body of /readyz."""
        service = self.generate or self.embed
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
            raise self._wrong_task("generates no text", "/v1/embeddings")
        return self.generate

    def embedder(self, model: str) -> EmbedService:
        """The service for embeddings. Raises RequestRefused for another model or task."""
        self._check_model(model)
        if self.embed is None:
            raise self._wrong_task("makes no embeddings", "/v1/chat/completions or /v1/completions")
        return self.embed

    def _check_model(self, model: str) -> None:
        if model != self.config.model_name:
            raise RequestRefused(
                f"The model {model!r} does not exist here; this replica serves "
                f"{self.config.model_name!r}.",
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
