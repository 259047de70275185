"""OpenAI-compatible generation shapes: chat completions, completions, embeddings, models, errors.

A request model accepts exactly the fields that are honoured. Anything else is refused by name, so
that nobody believes a setting took effect that did not.

Source: the OpenAI API reference (chat, completions, embeddings, models objects).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from tidegate.protocol.rank import RerankRequest, ScoreRequest
from tidegate.protocol.wire import Answer as Answer
from tidegate.protocol.wire import ModelName as ModelName
from tidegate.protocol.wire import WireModel as WireModel

MAX_CHOICES = 8
MAX_LOGPROBS = 20
MAX_SEQUENCES = 256
"""Prompts times choices of one completions request."""
MAX_STOP_STRINGS = 4
MAX_STOP_BYTES = 256
MAX_EMBEDDING_INPUTS = 2048
MAX_TOOLS = 128
MAX_GUIDED_CHOICES = 1024

StopString = Annotated[str, StringConstraints(min_length=1)]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


# --- requests -------------------------------------------------------------------------------------


class StreamOptions(WireModel):
    include_usage: bool = False


class JsonSchema(WireModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(
        alias="schema", description="JSON Schema, at most 64 KiB and 32 levels deep"
    )
    strict: bool | None = Field(
        default=None,
        description="false leaves out what cannot be kept, which is refused by name otherwise",
    )


class ResponseFormat(WireModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("json_schema: needed with type 'json_schema', and only there")
        return self


GuidedChoice = Annotated[str, StringConstraints(min_length=1)]


class ContextCompression(WireModel):
    """Leave out of a prompt what matters least, until it has so many tokens."""

    target_tokens: int = Field(ge=1, description="of the prompt, its template included")
    method: Literal["relevance", "surprise", "tokens"] = Field(
        default="relevance",
        description="keep sentences that are close to the question; sentences, or words, that "
        "surprise the model, which has to read them once for that",
    )


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
    guided_json: dict[str, Any] | None = Field(
        default=None, description="JSON Schema, at most 64 KiB and 32 levels deep"
    )
    guided_regex: str | None = Field(
        default=None, min_length=1, description="matched by the whole text; Rust's regex syntax"
    )
    guided_choice: list[GuidedChoice] | None = Field(
        default=None, min_length=1, max_length=MAX_GUIDED_CHOICES
    )
    guided_grammar: str | None = Field(
        default=None, min_length=1, description="EBNF: GBNF (root ::= …) or Lark (start: …)"
    )
    context_compression: ContextCompression | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def guides(self) -> list[str]:
        """The fields that say what the text must look like."""
        names = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
        return [name for name in names if getattr(self, name) is not None]

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
    def _one_guide_at_most(self) -> SamplingFields:
        if len(self.guides) > 1:
            raise ValueError(f"{self.guides[1]}: not together with {self.guides[0]}; choose one")
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


class PastFunctionCall(WireModel):
    name: FunctionName
    arguments: str = Field(description="a JSON object as text")


class PastToolCall(WireModel):
    """A call of an earlier turn, as an answer had it."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    type: Literal["function"]
    function: PastFunctionCall


class ChatMessage(WireModel):
    """One turn. An assistant's may be calls alone; a message of role `tool` answers each."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(default=None, max_length=64)
    tool_calls: list[PastToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(default=None, max_length=256)
    refusal: None = Field(default=None, description="an answer may be sent back as it came")

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
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError(
                "tool_call_id: a message of role 'tool' says which call it answers, and no other"
            )
        if self.content is None and not self.tool_calls:
            raise ValueError("content: only an assistant's message with tool_calls may lack it")
        return self


class FunctionDefinition(WireModel):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="a JSON schema of an object; no arguments when absent"
    )
    strict: bool | None = Field(
        default=None, description="the model can only write arguments that follow the schema"
    )


class Tool(WireModel):
    """A function that the model may ask its caller to run."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(WireModel):
    name: FunctionName


class NamedToolChoice(WireModel):
    """This function, and no other answer."""

    type: Literal["function"]
    function: NamedFunction


class ToolFields(BaseModel):
    """The tools of a chat, and whether the model may, must or must not call them."""

    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = Field(
        default=None, description="auto when there are tools"
    )
    parallel_tool_calls: bool | None = Field(
        default=None, description="several calls in one answer; true when absent"
    )

    @model_validator(mode="after")
    def _choice_is_among_the_tools(self) -> ToolFields:
        for field in ("tool_choice", "parallel_tool_calls"):
            if getattr(self, field) is not None and self.tools is None:
                raise ValueError(f"{field}: only allowed when tools are given")
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("tools: two functions have the same name; rename one")
        if isinstance(self.tool_choice, NamedToolChoice):
            chosen = self.tool_choice.function.name
            if chosen not in names:
                raise ValueError(f"tool_choice: {chosen!r} is none of the tools; name one of them")
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


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = Field(default=[])


class ChoiceLogprobs(Answer):
    content: list[TokenLogprob] | None = None
    refusal: None = None


class FunctionCall(Answer):
    name: str
    arguments: str = Field(description="a JSON object as text")


class ToolCall(Answer):
    """A function that the model asks its caller to run."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


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


class FunctionCallDelta(Answer):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Answer):
    """A piece of the call `index`: its id, type and function's name first, then its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta | None = None


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
    root: str | None = Field(default=None, description="where the weights of an adapter come from")
    parent: str | None = Field(default=None, description="the model that an adapter changes")


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


ModelRequest = (
    ChatCompletionRequest | CompletionRequest | EmbeddingRequest | RerankRequest | ScoreRequest
)
ENDPOINT_REQUESTS: dict[str, type[ModelRequest]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/v1/rerank": RerankRequest,
    "/v1/score": ScoreRequest,
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
