"""The models that may be named in a request."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidegate.protocol.wire import Answer


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
