"""Texts and chats as tokens, and back, without running the model.

Source: vLLM's /tokenize and /detokenize, whose shapes these are.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from tidegate.protocol.openai import (
    ENDPOINT_REQUESTS,
    ChatCompletionRequest,
    ChatMessage,
    ModelRequest,
    ToolFields,
)
from tidegate.protocol.wire import Answer, ModelName, WireModel

TOKENIZE, DETOKENIZE = "/v1/tokenize", "/v1/detokenize"


class TokenizeRequest(WireModel, ToolFields):
    """A prompt as a completion reads it, or messages as a chat with the same tools does."""

    model: ModelName
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    add_special_tokens: bool | None = Field(
        default=None, description="of a prompt, such as its beginning; true when absent"
    )
    add_generation_prompt: bool | None = Field(
        default=None, description="of messages, the words that begin an answer; true when absent"
    )
    return_token_strs: bool | None = Field(default=None, description="false when absent")

    @property
    def chat(self) -> ChatCompletionRequest:
        """The chat whose prompt is asked for, of a request with `messages`."""
        return ChatCompletionRequest(
            model=self.model,
            messages=self.messages or [],
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
        )

    @model_validator(mode="after")
    def _either_prompt_or_messages(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: give either prompt or messages")
        for field in ("tools", "add_generation_prompt"):
            if self.messages is None and getattr(self, field) is not None:
                raise ValueError(f"{field}: only allowed with messages")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError("add_special_tokens: a chat's template writes its own; leave it out")
        return self


class TokenizeResponse(Answer):
    count: int = Field(description="of tokens")
    max_model_len: int = Field(description="tokens that prompt and answer may have together")
    tokens: list[int]
    token_strs: list[str] | None = Field(
        default=None, description="each token as the vocabulary spells it"
    )


class DetokenizeRequest(WireModel):
    model: ModelName
    tokens: list[int]


class DetokenizeResponse(Answer):
    prompt: str = Field(description="the text, special tokens included")


OnlineRequest = ModelRequest | TokenizeRequest | DetokenizeRequest
ONLINE_REQUESTS: dict[str, type[OnlineRequest]] = {
    **ENDPOINT_REQUESTS,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}
"""The endpoints that answer while their caller waits: those of a model's work, and these, which are
never handed in as work.
"""
