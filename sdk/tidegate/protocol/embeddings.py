"""Texts as vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidegate.protocol.token_usage import InputUsage
from tidegate.protocol.wire import Answer, ModelName, WireModel

MAX_EMBEDDING_INPUTS = 2048


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


class Embedding(Answer):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class EmbeddingUsage(InputUsage):
    pass


class EmbeddingResponse(Answer):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
