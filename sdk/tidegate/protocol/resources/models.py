"""Models, and what their files say about them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from tidegate.protocol.resources.base import Resource


class ModelFacts(Resource):
    """What the files of a model say about it."""

    format: Literal["safetensors", "gguf"]
    architecture: str
    digest: str = Field(description="sha256 over names, sizes and contents' fingerprints")
    parameters: int
    weights_bytes: int = Field(description="bytes of the weights as stored")
    context_tokens: int
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    embedding_parameters: int = Field(default=0, description="of one table, vocabulary by width")
    tied: bool = Field(default=True, description="the input embedding is the last layer too")
    stored_bits: int = Field(default=16, description="of most weights as stored")
    idle_parameters: int = Field(
        default=0, description="of the experts that a token of a mixture does not use"
    )
    precision: str | None = Field(
        default=None, description="of an artifact, which was built in one and stays in it"
    )
    tokens_digest: str | None = Field(
        default=None,
        description="sha256 over its tokens and their numbers; null where no file says them",
    )


class ModelVersionView(Resource):
    id: str
    digest: str
    source: str
    revision: str | None = None
    facts: ModelFacts
    created_at: datetime


class ModelView(Resource):
    id: str
    source: str
    task: str
    versions: list[ModelVersionView]
    created_at: datetime
