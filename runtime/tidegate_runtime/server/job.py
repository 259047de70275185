"""One validated request as the engine sees it, and its choices as they grow."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from tidegate.protocol.openai import Usage
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import FinishReason, SequenceRequest, TokenLogprobs


@dataclass(frozen=True)
class Job:
    """What to run, and what every part of the answer repeats.

    `prompt_texts` are the prompts to echo, one per sequence; empty without echo.
    """

    id: str
    created: int
    model: str
    sequences: tuple[SequenceRequest, ...]
    prompt_tokens: int
    prompt_texts: tuple[str, ...] = ()

    @staticmethod
    def new_id(prefix: str) -> str:
        """A fresh id, as `chatcmpl-…`."""
        return f"{prefix}-{secrets.token_hex(12)}"

    @staticmethod
    def now() -> int:
        """Unix seconds."""
        return int(time.time())

    def usage(self, completion_tokens: int) -> Usage:
        """Each prompt counts once, whatever `n` is."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=self.prompt_tokens + completion_tokens,
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
