"""OpenAI-compatible generation shapes: chat completions, completions, embeddings, models, errors.

A request model accepts exactly the fields that are honoured. Anything else is refused by name, so
that nobody believes a setting took effect that did not.

Source: the OpenAI API reference (chat, completions, embeddings, models objects).
"""

from __future__ import annotations

from tidegate.protocol.chat import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatDelta,
    ChatFinishReason,
    ChatMessage,
    ChoiceLogprobs,
    TextPart,
    TokenLogprob,
    TopLogprob,
)
from tidegate.protocol.completions import (
    MAX_SEQUENCES,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    FinishReason,
)
from tidegate.protocol.embeddings import (
    MAX_EMBEDDING_INPUTS,
    Embedding,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)
from tidegate.protocol.errors import ErrorDetail, ErrorResponse, error_from_validation
from tidegate.protocol.model_cards import ModelCard, ModelList
from tidegate.protocol.rank import RerankRequest, ScoreRequest
from tidegate.protocol.sampling import (
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    ContextCompression,
    SamplingFields,
    StopString,
    StreamOptions,
)
from tidegate.protocol.structure import MAX_GUIDED_CHOICES, GuidedChoice, JsonSchema, ResponseFormat
from tidegate.protocol.token_usage import PromptTokensDetails, Usage
from tidegate.protocol.tools import (
    MAX_TOOLS,
    FunctionCall,
    FunctionCallDelta,
    FunctionDefinition,
    FunctionName,
    NamedFunction,
    NamedToolChoice,
    PastFunctionCall,
    PastToolCall,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolFields,
)
from tidegate.protocol.wire import Answer, ModelName, WireModel

__all__ = [
    "ENDPOINT_REQUESTS",
    "MAX_CHOICES",
    "MAX_EMBEDDING_INPUTS",
    "MAX_GUIDED_CHOICES",
    "MAX_LOGPROBS",
    "MAX_SEQUENCES",
    "MAX_STOP_BYTES",
    "MAX_STOP_STRINGS",
    "MAX_TOOLS",
    "Answer",
    "AssistantMessage",
    "ChatChoice",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatDelta",
    "ChatFinishReason",
    "ChatMessage",
    "ChoiceLogprobs",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "ContextCompression",
    "Embedding",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "ErrorDetail",
    "ErrorResponse",
    "FinishReason",
    "FunctionCall",
    "FunctionCallDelta",
    "FunctionDefinition",
    "FunctionName",
    "GuidedChoice",
    "JsonSchema",
    "ModelCard",
    "ModelList",
    "ModelName",
    "ModelRequest",
    "NamedFunction",
    "NamedToolChoice",
    "PastFunctionCall",
    "PastToolCall",
    "PromptTokensDetails",
    "ResponseFormat",
    "SamplingFields",
    "StopString",
    "StreamOptions",
    "TextPart",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolFields",
    "TopLogprob",
    "Usage",
    "WireModel",
    "error_from_validation",
]

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
