"""The service that says how well texts fit together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate.protocol.rank import (
    RankedDocument,
    RankResult,
    RankUsage,
    RerankRequest,
    RerankResponse,
    Score,
    ScoreRequest,
    ScoreResponse,
)
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.engine.embedder import EncoderInput
from tidegate_runtime.engine.encoder_queue import EncoderQueue
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.job import Job
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.prompt import check_length, text_tokens
from tidegate_runtime.server.replica import Pressure
from tidegate_runtime.server.tokens import Tokens

Pair = tuple[str, str]


@dataclass(frozen=True)
class Fields:
    """What a request calls the two texts of a pair."""

    first: str
    second: str


_RERANK = Fields("query", "documents")
_SCORE = Fields("text_1", "text_2")


@dataclass(frozen=True)
class Scored:
    """A score for each pair, larger for what fits better, and the tokens that were read."""

    scores: list[float]
    tokens: int


class Scorer(Protocol):
    """How pairs of texts get their scores."""

    async def score(self, pairs: Sequence[Pair], fields: Fields) -> Scored:
        """Raises RequestRefused that names one of the fields."""


class CrossScorer:
    """A cross-encoder reads both texts of a pair together: a score from 0 to 1."""

    def __init__(self, loaded: LoadedModel, encoder: EncoderQueue) -> None:
        self._loaded = loaded
        self._encoder = encoder

    async def score(self, pairs: Sequence[Pair], fields: Fields) -> Scored:
        """Raises RequestRefused for a pair that is longer than the context."""
        inputs = await asyncio.to_thread(self._inputs, pairs, fields)
        made = await self._encoder.encode(inputs)
        scores = [float(score[0]) for score in made]
        return Scored(scores, sum(len(each.tokens) for each in inputs))

    def _inputs(self, pairs: Sequence[Pair], fields: Fields) -> list[EncoderInput]:
        found = []
        for first, second in pairs:
            coded = self._loaded.tokenizer(first, second)
            given = EncoderInput(coded["input_ids"], coded.get("token_type_ids"))
            what = f"{second[:40]!r} with its {fields.first}"
            check_length(len(given.tokens), self._loaded.context_tokens, fields.second, what)
            found.append(given)
        return found


class LikenessScorer:
    """An embedding model reads every text once: the cosine of two vectors, from -1 to 1."""

    def __init__(self, loaded: LoadedModel, encoder: EncoderQueue) -> None:
        self._loaded = loaded
        self._encoder = encoder

    async def score(self, pairs: Sequence[Pair], fields: Fields) -> Scored:
        """Raises RequestRefused for a text that is longer than the context."""
        inputs = await asyncio.to_thread(self._inputs, pairs, fields)
        made = await self._encoder.encode(list(inputs.values()))
        vectors = dict(zip(inputs, made, strict=True))
        scores = [float(vectors[first] @ vectors[second]) for first, second in pairs]
        return Scored(scores, sum(len(each.tokens) for each in inputs.values()))

    def _inputs(self, pairs: Sequence[Pair], fields: Fields) -> dict[str, EncoderInput]:
        """Each text once."""
        loaded, found = self._loaded, {}
        for pair in pairs:
            for text, field in zip(pair, (fields.first, fields.second), strict=True):
                if text not in found:
                    tokens = text_tokens(loaded.tokenizer, text, loaded.vocabulary_size, field)
                    check_length(len(tokens), loaded.context_tokens, field, f"{text[:40]!r}")
                    found[text] = EncoderInput(tokens)
        return found


class Ranking:
    """Ranks documents and scores pairs."""

    kv_cache_tokens = 0

    def __init__(
        self, loaded: LoadedModel, encoder: EncoderQueue, scorer: Scorer, metrics: Metrics
    ) -> None:
        self._encoder = encoder
        self._scorer = scorer
        self._metrics = metrics
        self.context_tokens = loaded.context_tokens
        self.tokens = Tokens(loaded)

    def pressure(self) -> Pressure:
        """It keeps no KV cache; its inputs wait for a round of the encoder."""
        return Pressure(waiting=self._encoder.waiting)

    async def rerank(self, request: RerankRequest, caller: Caller) -> RerankResponse:
        """The documents, the most relevant first; equals in their order. Raises RequestRefused."""
        texts = request.texts
        scored = await self._score([(request.query, text) for text in texts], _RERANK, caller)
        order = sorted(range(len(texts)), key=lambda index: -scored.scores[index])
        return RerankResponse(
            id=Job.new_id("rerank"),
            model=request.model,
            results=[
                RankResult(
                    index=index,
                    relevance_score=scored.scores[index],
                    document=RankedDocument(text=texts[index])
                    if request.return_documents
                    else None,
                )
                for index in order[: request.top_n]
            ],
            usage=_usage(scored),
        )

    async def score(self, request: ScoreRequest, caller: Caller) -> ScoreResponse:
        """A score for every pair, in order. Raises RequestRefused."""
        scored = await self._score(request.pairs, _SCORE, caller)
        return ScoreResponse(
            id=Job.new_id("score"),
            created=Job.now(),
            model=request.model,
            data=[Score(index=index, score=each) for index, each in enumerate(scored.scores)],
            usage=_usage(scored),
        )

    async def _score(self, pairs: Sequence[Pair], fields: Fields, caller: Caller) -> Scored:
        scored = await self._scorer.score(pairs, fields)
        self._metrics.embedded(scored.tokens, time.monotonic() - caller.arrived_s)
        caller.trace.embedded(scored.tokens)
        return scored


def _usage(scored: Scored) -> RankUsage:
    return RankUsage(prompt_tokens=scored.tokens, total_tokens=scored.tokens)
