"""Completions: prompts that are continued."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidegate.protocol.sampling import MAX_LOGPROBS, SamplingFields, check_limits
from tidegate.protocol.token_usage import Usage
from tidegate.protocol.wire import Answer

MAX_SEQUENCES = 256
"""Prompts times choices of one completions request."""
FinishReason = Literal["stop", "length"]


class CompletionRequest(SamplingFields):
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(
        default=None, ge=0, description="16 when absent; 0 only scores an echoed prompt"
    )
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt, each as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [item for item in self.prompt if not isinstance(item, int)]

    @model_validator(mode="after")
    def _limits_agree(self) -> CompletionRequest:
        check_limits(self.min_tokens, self.max_tokens)
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 is only allowed with echo, to score the prompt")
        return self

    @model_validator(mode="after")
    def _only_texts_are_compressed(self) -> CompletionRequest:
        if self.context_compression is None:
            return self
        if self.echo:
            raise ValueError("echo: a prompt that is compressed is not echoed; leave one of them")
        if not all(isinstance(prompt, str) for prompt in self.prompts):
            raise ValueError("context_compression: token ids are not compressed; send text")
        return self

    @model_validator(mode="after")
    def _prompt_is_not_empty(self) -> CompletionRequest:
        if not self.prompts or any(len(prompt) == 0 for prompt in self.prompts):
            raise ValueError("prompt: an empty prompt has nothing to continue")
        if len(self.prompts) * (self.n or 1) > MAX_SEQUENCES:
            raise ValueError(
                f"prompt: prompts times n may be at most {MAX_SEQUENCES} in one request"
            )
        return self


class CompletionLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(Answer):
    """A completion, and (with `finish_reason` null until the end) one chunk of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
