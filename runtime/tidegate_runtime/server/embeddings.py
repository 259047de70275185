"""The service of a model that embeds."""

from __future__ import annotations

import asyncio
import base64
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from tidegate.protocol.openai import (
    Embedding,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.engine.embedder import Embedder, batches
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.prompt import text_tokens
from tidegate_runtime.server.replica import Pressure


class Embeddings:
    """Embeds the inputs of requests in small batches on one thread, so that requests take turns."""

    kv_cache_tokens = 0

    def __init__(self, loaded: LoadedModel, embedder: Embedder, metrics: Metrics) -> None:
        self._loaded = loaded
        self._embedder = embedder
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self.context_tokens = loaded.context_tokens

    def pressure(self) -> Pressure:
        """Never full: it keeps no KV cache, and its inputs wait outside of any engine."""
        return Pressure()

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> EmbeddingResponse:
        """Embed every input. Raises RequestRefused before any is embedded."""
        inputs = await asyncio.to_thread(self._tokens, request)
        loop = asyncio.get_running_loop()
        vectors: dict[int, torch.Tensor] = {}
        for batch in batches([len(tokens) for tokens in inputs]):
            made = await loop.run_in_executor(
                self._thread, self._embedder.encode, [inputs[index] for index in batch]
            )
            vectors.update(zip(batch, made, strict=True))
        count = sum(len(tokens) for tokens in inputs)
        self._metrics.embedded(count, time.monotonic() - caller.arrived_s)
        caller.trace.embedded(count)
        return EmbeddingResponse(
            data=[
                Embedding(index=index, embedding=_encode(vectors[index], request))
                for index in range(len(inputs))
            ],
            model=request.model,
            usage=EmbeddingUsage(prompt_tokens=count, total_tokens=count),
        )

    def _tokens(self, request: EmbeddingRequest) -> list[list[int]]:
        loaded = self._loaded
        size = int(loaded.model.config.hidden_size)
        if request.dimensions is not None and request.dimensions > size:
            raise RequestRefused(
                f"dimensions: {request.dimensions} is more than this model's {size}.",
                param="dimensions",
                code="invalid_value",
            )
        inputs = []
        for text in request.inputs:
            tokens = text_tokens(loaded.tokenizer, text, loaded.vocabulary_size, "input")
            if len(tokens) > self.context_tokens:
                raise RequestRefused(
                    f"This model's maximum context length is {self.context_tokens} tokens, but an "
                    f"input has {len(tokens)}. Split it into shorter inputs.",
                    param="input",
                    code="context_length_exceeded",
                )
            inputs.append(tokens)
        return inputs


def _encode(vector: torch.Tensor, request: EmbeddingRequest) -> list[float] | str:
    """The vector as asked for: shortened and normalised again, as floats or base64."""
    if request.dimensions is not None:
        vector = torch.nn.functional.normalize(vector[: request.dimensions], dim=-1)
    if request.encoding_format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return [float(value) for value in vector.tolist()]
