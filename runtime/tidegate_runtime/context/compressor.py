"""Shortens the texts of a prompt until the prompt has a number of tokens.

What may be cut are texts; what stands around them (roles, the template, the question) is not looked
at, only counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.protocol.openai import ContextCompression
from tidegate_runtime.context.choose import Piece, choose, joined
from tidegate_runtime.context.relevance import relevance
from tidegate_runtime.context.segments import Segment, sentences, words
from tidegate_runtime.context.surprise import WINDOW_TOKENS, surprise
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SequenceRequest
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.caller import Caller

MOST_CONTEXTS = 8
"""How many times the model's context may be scored for one prompt."""
_ATTEMPTS = 8


@dataclass(frozen=True)
class Cuttable:
    """A prompt whose `texts` may be cut. `count` says how many tokens it has with others in their
    place; `question` is what it is about; `field` is where it comes from.
    """

    texts: Sequence[str]
    question: str
    count: Callable[[Sequence[str]], int]
    field: str


@dataclass(frozen=True)
class Compressed:
    """What is left of the texts, what the prompt had, and how many tokens were run to choose."""

    texts: Sequence[str]
    from_tokens: int
    scoring_tokens: int = 0


class Compressor:
    """Of one model, whose engine scores tokens where the method wants that."""

    def __init__(self, tokenizer: Any, engine: Engine, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        self._context_tokens = context_tokens
        self._window_tokens = min(WINDOW_TOKENS, context_tokens, engine.cache_tokens)

    async def compress(
        self, prompt: Cuttable, asked: ContextCompression, caller: Caller
    ) -> Compressed:
        """Cut a prompt to `asked.target_tokens`; one that is within them stays as it is.

        Raises RequestRefused when even without its texts it has more, or when there is too much to
        score, and what the engine raises.
        """
        tokens = await asyncio.to_thread(prompt.count, prompt.texts)
        if tokens <= asked.target_tokens:
            return Compressed(prompt.texts, tokens)
        least = await asyncio.to_thread(prompt.count, [""] * len(prompt.texts))
        if least > asked.target_tokens:
            raise RequestRefused(
                f"context_compression.target_tokens: {asked.target_tokens} cannot be reached; this "
                f"prompt has {tokens} tokens, of which {least} are never cut. Raise it to {least} "
                f"or more, or shorten {prompt.field}.",
                param="context_compression.target_tokens",
                code="context_compression_impossible",
            )
        pieces, scoring_tokens = await self._pieces(prompt, asked, caller)
        cut = await asyncio.to_thread(_fitted, pieces, prompt, asked.target_tokens, least)
        return Compressed(cut, tokens, scoring_tokens)

    async def _pieces(
        self, prompt: Cuttable, asked: ContextCompression, caller: Caller
    ) -> tuple[list[Piece], int]:
        """What may be left out, each with its value, and the tokens that were run to know it."""
        cut = words if asked.method == "tokens" else sentences
        found = await asyncio.to_thread(_segments, prompt.texts, cut)
        contents = [segment.text for _, segment in found]
        ids = await asyncio.to_thread(self._tokenized, contents)
        scoring_tokens = 0
        if asked.method == "relevance":
            values = await asyncio.to_thread(relevance, contents, prompt.question)
        else:
            scoring_tokens = sum(map(len, ids))
            self._check_scorable(scoring_tokens, prompt.field)
            like = SequenceRequest(
                prompt=(),
                max_tokens=0,
                prompt_logprobs=True,
                project=caller.project,
                priority=caller.priority,
            )
            values = await surprise(self._engine, ids, like, self._window_tokens)
        pieces = [
            Piece(text, content, len(tokens), value)
            for (text, _), content, tokens, value in zip(found, contents, ids, values, strict=True)
        ]
        return pieces, scoring_tokens

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def _check_scorable(self, tokens: int, field: str) -> None:
        most = MOST_CONTEXTS * self._context_tokens
        if tokens > most:
            raise RequestRefused(
                f"{field}: {tokens} tokens are too many to score; at most {most} are. Shorten it, "
                "or set context_compression.method to 'relevance', which scores none.",
                param=field,
                code="context_length_exceeded",
            )


def _segments(
    texts: Sequence[str], cut: Callable[[str], list[Segment]]
) -> list[tuple[int, Segment]]:
    return [(place, segment) for place, text in enumerate(texts) for segment in cut(text)]


def _fitted(pieces: list[Piece], prompt: Cuttable, target_tokens: int, least: int) -> list[str]:
    """The texts of the pieces that fit. Tokens change a little where a piece is left out, so what
    was made is counted, and made again with less.
    """
    budget = target_tokens - least
    for _ in range(_ATTEMPTS):
        texts = joined(choose(pieces, budget), len(prompt.texts))
        excess = prompt.count(texts) - target_tokens
        if excess <= 0:
            return texts
        budget -= excess
    return [""] * len(prompt.texts)
