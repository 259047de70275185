"""Chat completions: conversations, their answers, and the pieces of a streamed one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tidegate.protocol.sampling import MAX_LOGPROBS, SamplingFields, check_limits
from tidegate.protocol.structure import ResponseFormat
from tidegate.protocol.token_usage import Usage
from tidegate.protocol.tools import MAX_TOOLS, PastToolCall, ToolCall, ToolCallDelta, ToolFields
from tidegate.protocol.wire import Answer, WireModel

ChatFinishReason = Literal["stop", "length", "tool_calls"]


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class ChatMessage(WireModel):
    """One turn. An assistant's may be calls alone; a message of role `tool` answers each.

    An answer may be sent back as it came, or as a client keeps it: what says nothing of its own is
    taken and not read (decision 153).
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(default=None, max_length=64)
    tool_calls: list[PastToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(default=None, max_length=256)
    refusal: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)
    audio: None = None
    function_call: None = None
    parsed: Any = Field(default=None, description="the content once more; not read")

    @property
    def text(self) -> str:
        """The content as one string; text parts are joined by newlines, none at all is empty."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)

    @model_validator(mode="after")
    def _fields_suit_the_role(self) -> ChatMessage:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError(f"tool_calls: a message of role {self.role!r} calls no tools")
        if self.parsed is not None and self.role != "assistant":
            raise ValueError(f"parsed: a message of role {self.role!r} has content alone")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError(
                "tool_call_id: a message of role 'tool' says which call it answers, and no other"
            )
        if self.content is None and not self.tool_calls:
            raise ValueError("content: only an assistant's message with tool_calls may lack it")
        return self


class ChatCompletionRequest(SamplingFields, ToolFields):
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None

    @property
    def guides(self) -> list[str]:
        formatted = self.response_format is not None and self.response_format.type != "text"
        return [*(["response_format"] if formatted else []), *super().guides]

    @model_validator(mode="after")
    def _a_guide_leaves_no_calls(self) -> ChatCompletionRequest:
        if self.guides and self.tools is not None and self.tool_choice != "none":
            raise ValueError(
                f"{self.guides[0]}: not together with tools that may be called; set tool_choice to "
                "'none', or ask for it in another request"
            )
        return self

    @property
    def output_limit(self) -> int | None:
        """The caller's bound on generated tokens; the newer field wins when both are given."""
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _limits_agree(self) -> ChatCompletionRequest:
        check_limits(self.min_tokens, self.output_limit)
        return self

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only allowed when logprobs is true")
        return self


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = Field(default=[])


class ChoiceLogprobs(Answer):
    content: list[TokenLogprob] | None = None
    refusal: None = None


class AssistantMessage(Answer):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCall] | None = Field(default=None, description="left out without calls")

    @model_serializer(mode="wrap")
    def _without_no_calls(self, shown: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = shown(self)
        if self.tool_calls is None:
            fields.pop("tool_calls", None)
        return fields


class ChatChoice(Answer):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: ChatFinishReason


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="unix seconds")
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None


class ChatDelta(Answer):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatChunkChoice(Answer):
    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: ChatFinishReason | None = None


class ChatCompletionChunk(Answer):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
