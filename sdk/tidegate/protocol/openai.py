"""OpenAI-compatible generation shapes: chat completions, completions, embeddings, models, errors.

A request model accepts exactly the fields that are honoured. Anything else is refused by name, so
that nobody believes a setting took effect that did not.

Source: the OpenAI API reference (chat, completions, embeddings, models objects).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_CHOICES = 8
MAX_LOGPROBS = 20
MAX_SEQUENCES = 256
"""Prompts times choices of one completions request."""
MAX_STOP_STRINGS = 4
MAX_STOP_BYTES = 256
MAX_EMBEDDING_INPUTS = 2048

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
StopString = Annotated[str, StringConstraints(min_length=1)]
FinishReason = Literal["stop", "length"]


class WireModel(BaseModel):
    """A shape on the wire: unknown fields are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A shape we return: readers of an older version ignore fields that a newer one adds."""

    model_config = ConfigDict(extra="ignore")


# --- requests -------------------------------------------------------------------------------------


class StreamOptions(WireModel):
    include_usage: bool = False


class SamplingFields(WireModel):
    """How the next token is chosen; common to chat completions and completions."""

    model: ModelName
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=0, description="0 keeps every token")
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    repetition_penalty: float | None = Field(
        default=None, gt=0.0, le=2.0, description="divides what was seen; 1 is no penalty"
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = Field(
        default=None, max_length=1024, description="token id (as text) → bias in [-100, 100]"
    )
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: StopString | list[StopString] | None = None
    ignore_eos: bool | None = Field(default=None, description="do not stop at end of sequence")
    min_tokens: int | None = Field(
        default=None, ge=0, description="tokens before an end of sequence; stop strings still stop"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stop_strings(self) -> list[str]:
        """The stop strings as a list, empty when there are none."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @model_validator(mode="after")
    def _stop_is_bounded(self) -> SamplingFields:
        if len(self.stop_strings) > MAX_STOP_STRINGS:
            raise ValueError(f"stop: at most {MAX_STOP_STRINGS} strings are honoured")
        if any(len(text.encode()) > MAX_STOP_BYTES for text in self.stop_strings):
            raise ValueError(f"stop: a stop string is at most {MAX_STOP_BYTES} bytes")
        return self

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> SamplingFields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only allowed when stream is true")
        return self


def _check_limits(min_tokens: int | None, max_tokens: int | None) -> None:
    if min_tokens is not None and max_tokens is not None and min_tokens > max_tokens:
        raise ValueError(f"min_tokens: {min_tokens} is more than max_tokens {max_tokens}")


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class ChatMessage(WireModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(default=None, max_length=64)

    @property
    def text(self) -> str:
        """The content as one string; text parts are joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatCompletionRequest(SamplingFields):
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)

    @property
    def output_limit(self) -> int | None:
        """The caller's bound on generated tokens; the newer field wins when both are given."""
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _limits_agree(self) -> ChatCompletionRequest:
        _check_limits(self.min_tokens, self.output_limit)
        return self

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatCompletionRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only allowed when logprobs is true")
        return self


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
        _check_limits(self.min_tokens, self.max_tokens)
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 is only allowed with echo, to score the prompt")
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


class EmbeddingRequest(WireModel):
    model: ModelName
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(
        default=None, ge=1, description="keep the first N values and normalise again"
    )

    @property
    def inputs(self) -> list[str | list[int]]:
        """Every input, each as text or as token ids."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [[token for token in self.input if isinstance(token, int)]]
        return [item for item in self.input if not isinstance(item, int)]

    @model_validator(mode="after")
    def _input_is_bounded(self) -> EmbeddingRequest:
        if not self.inputs or any(len(text) == 0 for text in self.inputs):
            raise ValueError("input: an empty input has no embedding")
        if len(self.inputs) > MAX_EMBEDDING_INPUTS:
            raise ValueError(f"input: at most {MAX_EMBEDDING_INPUTS} inputs in one request")
        return self


# --- answers --------------------------------------------------------------------------------------


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(Answer):
    content: list[TokenLogprob] | None = None
    refusal: None = None


class AssistantMessage(Answer):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None


class ChatChoice(Answer):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason


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


class ChatChunkChoice(Answer):
    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Answer):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None


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


class Embedding(Answer):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(Answer):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelCard(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tidegate"


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Answer):
    """The error envelope of every `/v1` route, streamed or not."""

    error: ErrorDetail


ENDPOINT_REQUESTS: dict[str, type[ChatCompletionRequest | CompletionRequest | EmbeddingRequest]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
}
"""The endpoints that do a model's work, in every mode, and the shape each one takes."""


def error_from_validation(errors: list[Any]) -> ErrorDetail:
    """Turn pydantic's error list into one OpenAI error that names the field and the value.

    `errors` is `ValidationError.errors()`; the first error speaks, the rest are counted.
    """
    first = errors[0]
    path = [str(part) for part in first["loc"] if not _is_union_branch(part)]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not path and ": " in message:
        path = [message.split(":", 1)[0]]
    param = ".".join(path) or None
    if first["type"] == "extra_forbidden":
        return ErrorDetail(
            message=f"Unsupported parameter: '{param}'. This server does not honour it; remove it.",
            type="invalid_request_error",
            param=param,
            code="unsupported_parameter",
        )
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return ErrorDetail(
            message=message, type="invalid_request_error", param=param, code="missing_parameter"
        )
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "…"
    return ErrorDetail(
        message=f"Invalid value for '{param or 'body'}': {message} (got {shown}).",
        type="invalid_request_error",
        param=param,
        code="invalid_value",
    )


def _is_union_branch(part: object) -> bool:
    """Whether a location part is a type name that pydantic adds for a union's branch."""
    text = str(part)
    return text in {"str", "int"} or text.startswith(("list[", "constrained-"))
