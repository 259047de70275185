"""One sequence of tokens on its way through the engine, and what its caller asked for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NewType

import numpy as np

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.block_manager import (
    BLOCK_TOKENS,
    BlockHash,
    BlockTable,
    block_hash,
    blocks_for,
    project_salt,
)
from tidegate_runtime.engine.timeline import Timeline
from tidegate_runtime.sampling.token_counts import TokenCounts

if TYPE_CHECKING:
    from tidegate_runtime.grammar.matcher import Grammar, Matcher

SequenceId = NewType("SequenceId", int)
FinishReason = Literal["stop", "length"]
Tokens = np.ndarray[tuple[int], np.dtype[np.int32]]
_NO_BIAS: Mapping[int, float] = MappingProxyType({})
_NO_TEXTS: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. The defaults are OpenAI's.

    `temperature` 0 is greedy; `top_k` 0 keeps every token; `repetition_penalty` divides (Keskar et
    al. 2019) where the other penalties subtract, and counts the prompt too; `logprobs` is the
    number of alternatives reported beside each token, None for no report at all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int | None = None
    logprobs: int | None = None

    @property
    def penalizes(self) -> bool:
        """Whether the choice depends on the tokens before it."""
        repeats = self.repetition_penalty != 1.0
        return bool(repeats or self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True)
class SequenceRequest:
    """One sequence to generate.

    `project` shares the engine with others and caches prefixes for itself; a smaller `priority`
    runs first. `index` is its place among all the choices of its caller, `choice` among those of
    one prompt. `min_tokens` are generated before an end of sequence can be. `prompt_logprobs` asks
    for the log probability of each prompt token too; with `max_tokens` 0 for nothing else.
    `adapter` changes the model for this sequence. `shown_tokens` are special tokens that give the
    text here, and none otherwise.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    prompt_logprobs: bool = False
    shown_tokens: Mapping[int, str] = field(default_factory=lambda: _NO_TEXTS)
    index: int = 0
    choice: int = 0
    project: str = ""
    priority: int = 0
    adapter: Adapter | None = None
    grammar: Grammar | None = None

    @property
    def salt(self) -> BlockHash:
        """What stands before its first block: whom it shares cached prefixes with."""
        salt = project_salt(self.project)
        return salt if self.adapter is None else block_hash(salt, self.adapter.id.encode())


@dataclass(frozen=True)
class TokenLogprobs:
    """The log probability of one token, and the likeliest others as (token, logprob), best first.

    Taken from the model's own distribution, before temperature, penalties and truncation.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False, slots=True)
class Sequence:
    """The state of one sequence. Only the engine's thread touches it.

    `buffer` has room for all that the sequence may become: `length` tokens, then `drafts` guesses
    of the tokens that follow. Invariant: `computed_tokens` tokens have their keys and values in
    `blocks`, and `computed_tokens < length` between two steps: the last token is still to be run.
    """

    id: SequenceId
    request: SequenceRequest
    buffer: Tokens
    length: int
    blocks: BlockTable
    random: Random
    counts: TokenCounts | None
    matcher: Matcher | None = None
    computed_tokens: int = 0
    drafts: int = 0
    registered_blocks: int = 0
    timeline: Timeline = field(default_factory=Timeline)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    _hashes: list[BlockHash] = field(default_factory=list)
    _numbers: list[float] = field(default_factory=list)

    @classmethod
    def start(cls, sequence_id: SequenceId, request: SequenceRequest) -> Sequence:
        """A fresh sequence; equal seed and choice give equal random numbers, whatever runs."""
        prompt, seed = request.prompt, request.sampling.seed
        buffer = np.empty(len(prompt) + request.max_tokens, dtype=np.int32)
        buffer[: len(prompt)] = prompt
        return cls(
            sequence_id,
            request,
            buffer,
            len(prompt),
            BlockTable(blocks_for(len(buffer))),
            Random() if seed is None else Random(f"{seed}/{request.choice}"),
            TokenCounts(prompt) if request.sampling.penalizes else None,
            None if request.grammar is None else request.grammar.matcher(),
        )

    @property
    def rank(self) -> tuple[int, int]:
        """Who goes first, and is preempted last: the smaller priority, then the older."""
        return self.request.priority, self.id

    @property
    def tokens(self) -> Tokens:
        """The prompt and what was generated, `[length]`."""
        return self.buffer[: self.length]

    @property
    def draft_tokens(self) -> list[int]:
        """The guesses that follow the tokens."""
        drafts: list[int] = self.buffer[self.length : self.length + self.drafts].tolist()
        return drafts

    @property
    def pending_tokens(self) -> int:
        """Tokens that the model has not seen yet; 1 while decoding."""
        return self.length - self.computed_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens generated so far."""
        return self.length - len(self.request.prompt)

    @property
    def room(self) -> int:
        """Tokens that may still be generated."""
        return len(self.buffer) - self.length

    @property
    def shareable_blocks(self) -> int:
        """Blocks that may come from the prefix cache; at least one token, or all to score, run."""
        return 0 if self.request.prompt_logprobs else (self.length - 1) // BLOCK_TOKENS

    def guess(self, drafts: Many[int]) -> None:
        """Take guesses of the next tokens, one less than `room` at most; the old ones go."""
        self.drafts = len(drafts)
        self.buffer[self.length : self.length + self.drafts] = drafts

    def append(self, token: int) -> None:
        """Take one generated token; the guesses are over.

        Raises GenerationFailed when its grammar cannot be followed any further.
        """
        self.buffer[self.length] = token
        self.length += 1
        self.drafts = 0
        if self.counts is not None:
            self.counts.add(token)
        if self.matcher is not None:
            self.matcher.take(token)
        if self._numbers:
            del self._numbers[0]

    def numbers(self, count: int) -> list[float]:
        """The random numbers in [0, 1) that the next `count` tokens are drawn with.

        Each token has a number of its own, so a token that was drawn as the guess of another step
        is the same one.
        """
        while len(self._numbers) < count:
            self._numbers.append(self.random.random())
        return self._numbers[:count]

    def hashes(self, blocks: int) -> Many[BlockHash]:
        """The hashes of the first `blocks` blocks, which are full; each is computed once."""
        for start in range(len(self._hashes) * BLOCK_TOKENS, blocks * BLOCK_TOKENS, BLOCK_TOKENS):
            parent = self._hashes[-1] if self._hashes else self.request.salt
            content = self.buffer[start : start + BLOCK_TOKENS].tobytes()
            self._hashes.append(block_hash(parent, content))
        return self._hashes[:blocks]
