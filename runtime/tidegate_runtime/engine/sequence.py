"""One sequence of tokens on its way through the engine, and what its caller asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Literal, NewType

SequenceId = NewType("SequenceId", int)
FinishReason = Literal["stop", "length"]
_NO_BIAS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. The defaults are OpenAI's.

    `temperature` 0 is greedy; `top_k` 0 keeps every token; `logprobs` is the number of
    alternatives reported beside each token, None for no report at all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int | None = None
    logprobs: int | None = None

    @property
    def adjusts_logits(self) -> bool:
        """Whether the logits are changed before the choice."""
        return bool(self.logit_bias or self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True)
class SequenceRequest:
    """One sequence to generate.

    `index` is its place among all the choices of its caller, `choice` among those of one prompt.
    `prompt_logprobs` asks for the log probability of each prompt token too.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    index: int = 0
    choice: int = 0


@dataclass(frozen=True)
class TokenLogprobs:
    """The log probability of one token, and the likeliest others as (token, logprob), best first.

    Taken from the model's own distribution, before temperature, penalties and truncation.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Sequence:
    """The state of one sequence. Only the engine's thread touches it.

    Invariant: `computed_tokens` tokens have their keys and values in `blocks`, and
    `computed_tokens < len(tokens)` between two steps: the last token is always still to be run.
    """

    id: SequenceId
    request: SequenceRequest
    tokens: list[int]
    random: Random
    computed_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    output_counts: Counter[int] = field(default_factory=Counter)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    @classmethod
    def start(cls, sequence_id: SequenceId, request: SequenceRequest) -> Sequence:
        """A fresh sequence; equal seed and choice give equal random numbers, whatever runs."""
        seed = request.sampling.seed
        random = Random() if seed is None else Random(f"{seed}/{request.choice}")
        return cls(sequence_id, request, list(request.prompt), random)

    @property
    def pending_tokens(self) -> int:
        """Tokens that the model has not seen yet; 1 while decoding."""
        return len(self.tokens) - self.computed_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.request.prompt)

    def append(self, token: int) -> None:
        """Take one generated token."""
        self.tokens.append(token)
        self.output_counts[token] += 1
