"""What every shape of the data plane begins with."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class WireModel(BaseModel):
    """A shape on the wire: unknown fields are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A shape we return: readers of an older version ignore fields that a newer one adds."""

    model_config = ConfigDict(extra="ignore")
