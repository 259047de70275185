"""The tokens that a request is counted for."""

from __future__ import annotations

from pydantic import Field

from tidegate.protocol.wire import Answer


class PromptTokensDetails(Answer):
    cached_tokens: int = Field(description="of the prompt, found computed already")
    compressed_from_tokens: int | None = Field(
        default=None, description="of the prompt as it was sent, where compression was asked for"
    )
    scoring_tokens: int | None = Field(
        default=None, description="run to compress it; part of prompt_tokens"
    )


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class InputUsage(Answer):
    """Of requests that generate nothing."""

    prompt_tokens: int
    total_tokens: int
