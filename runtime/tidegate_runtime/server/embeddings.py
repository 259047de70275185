"""The service of a model that embeds."""

from __future__ import annotations

import asyncio
import base64
import time

import torch

from tidegate.protocol.openai import (
    Embedding,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.engine.embedder import EncoderInput
from tidegate_runtime.engine.encoder_queue import EncoderQueue
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.prompt import check_length, text_tokens
from tidegate_runtime.server.replica import Pressure


class Embeddings:
    """Embeds the inputs of requests, those that arrive together in common batches."""

    kv_cache_tokens = 0

    def __init__(self, loaded: LoadedModel, encoder: EncoderQueue, metrics: Metrics) -> None:
        self._loaded = loaded
        self._encoder = encoder
        self._metrics = metrics
        self.context_tokens = loaded.context_tokens

    def pressure(self) -> Pressure:
        """It keeps no KV cache; its inputs wait for a round of the encoder."""
        return Pressure(waiting=self._encoder.waiting)

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> EmbeddingResponse:
        """Embed every input. Raises RequestRefused before any is embedded."""
        inputs = await asyncio.to_thread(self._inputs, request)
        vectors = await self._encoder.encode(inputs)
        count = sum(len(each.tokens) for each in inputs)
        self._metrics.embedded(count, time.monotonic() - caller.arrived_s)
        caller.trace.embedded(count)
        return EmbeddingResponse(
            data=[
                Embedding(index=index, embedding=_encode(vector, request))
                for index, vector in enumerate(vectors)
            ],
            model=request.model,
            usage=EmbeddingUsage(prompt_tokens=count, total_tokens=count),
        )

    def _inputs(self, request: EmbeddingRequest) -> list[EncoderInput]:
        loaded = self._loaded
        size = int(loaded.model.config.hidden_size)
        if request.dimensions is not None and request.dimensions > size:
            raise RequestRefused(
                f"dimensions: {request.dimensions} is more than this model's {size}.",
                param="dimensions",
                code="invalid_value",
            )
        found = []
        for text in request.inputs:
            tokens = text_tokens(loaded.tokenizer, text, loaded.vocabulary_size, "input")
            check_length(len(tokens), self.context_tokens, "input", "an input")
            found.append(EncoderInput(tokens))
        return found


def _encode(vector: torch.Tensor, request: EmbeddingRequest) -> list[float] | str:
    """The vector as asked for: shortened and normalised again, as floats or base64."""
    if request.dimensions is not None:
        vector = torch.nn.functional.normalize(vector[: request.dimensions], dim=-1)
    if request.encoding_format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return [float(value) for value in vector.tolist()]
