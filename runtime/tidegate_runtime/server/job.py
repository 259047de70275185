"""One validated request as the engine sees it, and its choices as they grow."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tidegate.protocol.openai import PromptTokensDetails, Usage
from tidegate_runtime.context.compressor import Compressed
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import FinishReason, SequenceRequest, TokenLogprobs
from tidegate_runtime.engine.timeline import Timeline
from tidegate_runtime.tools.reading import CallReading


@dataclass(frozen=True)
class Job:
    """What to run, and what every part of the answer repeats.

    `prompt_texts` are the prompts to echo, one per sequence; empty without echo. `calls` says how
    calls of tools are found in the text; None where there can be none. `timelines` are those of the
    sequences, once they run. `compressed_from_tokens` is what the prompts had before they were cut,
    None when nobody asked for that; `scoring_tokens` were run to know where.
    """

    id: str
    created: int
    model: str
    sequences: tuple[SequenceRequest, ...]
    prompt_tokens: int
    prompt_texts: tuple[str, ...] = ()
    calls: CallReading | None = None
    timelines: tuple[Timeline, ...] = ()
    compressed_from_tokens: int | None = None
    scoring_tokens: int = 0

    @staticmethod
    def new_id(prefix: str) -> str:
        """A fresh id, as `chatcmpl-…`."""
        return f"{prefix}-{secrets.token_hex(12)}"

    @staticmethod
    def now() -> int:
        """Unix seconds."""
        return int(time.time())

    def compressed(self, cuts: Sequence[Compressed]) -> Job:
        """The same job, which says what its prompts were before."""
        return replace(
            self,
            compressed_from_tokens=sum(cut.from_tokens for cut in cuts),
            scoring_tokens=sum(cut.scoring_tokens for cut in cuts),
        )

    def usage(self, completion_tokens: int) -> Usage:
        """Each prompt counts once, whatever `n` is: so do its tokens that were cached at first."""
        cached = sum(
            timeline.cached_tokens
            for sequence, timeline in zip(self.sequences, self.timelines, strict=True)
            if sequence.choice == 0
        )
        details = PromptTokensDetails(cached_tokens=cached)
        if self.compressed_from_tokens is not None:
            details.compressed_from_tokens = self.compressed_from_tokens
            details.scoring_tokens = self.scoring_tokens
        prompt_tokens = self.prompt_tokens + self.scoring_tokens
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=details,
        )


@dataclass
class Choice:
    """One choice of an answer that is sent as a whole."""

    text: str = ""
    tokens: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason = "stop"

    def take(self, output: TokenOutput) -> None:
        """Add one token."""
        self.text += output.text
        self.tokens += output.token is not None
        if output.logprobs is not None:
            self.logprobs.append(output.logprobs)
        if output.prompt_logprobs:
            self.prompt_logprobs = output.prompt_logprobs
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
