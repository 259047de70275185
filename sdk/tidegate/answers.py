"""What a model answered, with the part that is usually wanted close at hand."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tidegate.protocol.openai import (
    Answer,
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    EmbeddingResponse,
    ErrorDetail,
    ToolCall,
)
from tidegate.protocol.rank import RerankResponse, ScoreResponse

__all__ = [
    "BatchResult",
    "ChatAnswer",
    "ChatChunk",
    "Embeddings",
    "ModelAnswer",
    "Ranks",
    "Scores",
    "TextAnswer",
]


class ChatAnswer(ChatCompletion):
    """A chat completion."""

    @property
    def text(self) -> str:
        """What the first choice says."""
        return (self.choices[0].message.content or "") if self.choices else ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of tools that the first choice asks for."""
        return (self.choices[0].message.tool_calls or []) if self.choices else []


class ChatChunk(ChatCompletionChunk):
    """A piece of a streamed chat completion."""

    @property
    def text(self) -> str:
        """What this piece adds to the first choice; empty for a piece that carries none."""
        own = (choice.delta.content or "" for choice in self.choices if choice.index == 0)
        return "".join(own)


class TextAnswer(Completion):
    """A text completion."""

    @property
    def text(self) -> str:
        """How the first choice continues the prompt."""
        return self.choices[0].text if self.choices else ""


class Embeddings(EmbeddingResponse):
    """Embeddings, one per input, in the order of the inputs."""

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors; raises ValueError for those asked for as base64."""
        ordered = sorted(self.data, key=lambda item: item.index)
        if any(isinstance(item.embedding, str) for item in ordered):
            raise ValueError("the embeddings are base64; leave encoding_format out to get floats")
        return [item.embedding for item in ordered if not isinstance(item.embedding, str)]


class Ranks(RerankResponse):
    """Documents in the order of their relevance to a query."""

    @property
    def order(self) -> list[int]:
        """The places that the documents had in the request, the most relevant first."""
        return [result.index for result in self.results]


class Scores(ScoreResponse):
    """How well pairs of texts fit together."""

    @property
    def values(self) -> list[float]:
        """One score per pair, in their order."""
        return [each.score for each in sorted(self.data, key=lambda item: item.index)]


ModelAnswer = ChatAnswer | TextAnswer | Embeddings | Ranks | Scores

ANSWER_OF: dict[str, type[ModelAnswer]] = {
    "/v1/chat/completions": ChatAnswer,
    "/v1/completions": TextAnswer,
    "/v1/embeddings": Embeddings,
    "/v1/rerank": Ranks,
    "/v1/score": Scores,
}
"""What each endpoint answers."""


class BatchResponse(Answer):
    status_code: int
    request_id: str | None = None
    body: dict[str, Any] = Field(description="the model's answer, or an error envelope")


class BatchError(Answer):
    code: str | None = None
    message: str


class BatchResult(Answer):
    """One line of a batch's output or error file."""

    id: str | None = None
    custom_id: str | None
    """None for a line that was not JSON."""
    response: BatchResponse | None = None
    error: BatchError | None = None

    @property
    def text(self) -> str:
        """What the model said first, for chat and completions; empty when this line failed."""
        choices = (self.response.body.get("choices") if self.response else None) or [{}]
        message = choices[0].get("message") or {}
        return str(message.get("content") or choices[0].get("text") or "")

    @property
    def failure(self) -> str | None:
        """Why this line failed, None when it succeeded."""
        if self.error is not None:
            return self.error.message
        if self.response is not None and self.response.status_code >= 400:
            body = self.response.body.get("error") or {}
            return str(ErrorDetail.model_validate({"type": "", "message": "", **body}).message)
        return None
