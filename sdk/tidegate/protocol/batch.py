"""What a batch may ask for, and what it says of itself, beyond its id and its states.

`ExpiresAfter` and `BatchUsage` are OpenAI's; `BatchProgress`, `TableInput` and `TableOutput` are
ours, and a client that does not know them ignores them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from tidegate.protocol.openai import Answer, WireModel

MAX_METADATA_PAIRS = 16
MAX_WINDOW_HOURS = 7 * 24
_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")

MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA_PAIRS)]


def window_hours(text: str) -> int:
    """The hours of a completion window such as `24h` or `7d`; ValueError for any other."""
    if found := _WINDOW.fullmatch(text):
        hours = int(found[1]) * (24 if found[2] == "d" else 1)
        if hours <= MAX_WINDOW_HOURS:
            return hours
    raise ValueError(f"expected whole hours or days from '1h' to '7d', such as '24h'; got {text!r}")


def _checked_window(text: str) -> str:
    window_hours(text)
    return text


CompletionWindow = Annotated[
    str,
    StringConstraints(max_length=8),
    AfterValidator(_checked_window),
    Field(description="from '1h' to '7d': what is not finished by then expires"),
]


class ExpiresAfter(WireModel):
    """When a file goes, counted from its own creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class InputTokensDetails(Answer):
    cached_tokens: int = 0


class OutputTokensDetails(Answer):
    reasoning_tokens: int = 0


class BatchUsage(Answer):
    """Tokens of the lines that were answered."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0


class BatchProgress(Answer):
    """How fast a batch goes, and what it took so far."""

    window_s: float = Field(description="seconds that the two rates are taken over")
    lines_per_s: float
    tokens_per_s: float = Field(description="prompt and completion tokens")
    completes_at: int | None = Field(
        default=None, description="if it goes on like this; null while no line ends"
    )
    in_time: bool | None = Field(
        default=None, description="whether that is within the completion window"
    )
    replica_s: float = Field(
        description="replica-seconds: each answered line's share of the replicas it ran beside "
        "others on"
    )
    cost_usd: float | None = Field(
        default=None,
        description="what these replica-seconds cost on demand; null where nothing is rented",
    )


class TableFormat(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


Uri = Annotated[str, StringConstraints(max_length=1024, pattern=r"^s3://[^/]+/.*$")]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class RowTerms(WireModel):
    """How a row of a table becomes a request."""

    model: str | None = Field(
        default=None, min_length=1, max_length=256, description="unless the template names it"
    )
    column: ColumnName | None = Field(
        default=None, description="whose text is the prompt, when there is no template"
    )
    id_column: ColumnName | None = Field(
        default=None, description="whose text names a row in messages; no two rows alike"
    )
    template: dict[str, Any] | None = Field(
        default=None, description="a request body; {{name}} in its texts stands for a column"
    )


class TableInput(RowTerms):
    """Rows of the tables under a prefix, each made into one request."""

    uri: Uri = Field(description="s3://bucket/prefix/, or one object")
    format: TableFormat = Field(strict=False)


class TableOutput(WireModel):
    """Where the same rows go, with the answers beside them."""

    uri: Uri = Field(description="s3://bucket/prefix/")
    format: TableFormat | None = Field(
        default=None, strict=False, description="the input's, when absent"
    )
