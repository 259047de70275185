"""What `tidegate compress` and the runtime's program say to each other."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Method = Literal["rtn", "gptq", "awq", "smoothquant", "wanda", "sparsegpt", "drop"]


class CompressProgress(BaseModel):
    """A line on standard error: `done` of `total` steps of `stage` are behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    done: int
    total: int
