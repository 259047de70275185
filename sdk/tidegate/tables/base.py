"""What a table promises, whichever its format: chunks of rows, in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CHUNK_ROWS = 200
MAX_ROW_BYTES = 8 * 1024 * 1024
ADDED = ("answer", "error", "prompt_tokens", "completion_tokens")
"""Columns that the output has beside the input's."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Rows that stand one after another."""

    rows: Sequence[Row | None]
    """None for a line that is no object."""
    batch: Any = None
    """The same rows as a `pyarrow.RecordBatch`, where the format has one."""


@dataclass(frozen=True)
class Answered:
    """What became of one row."""

    answer: str | list[float] | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def columns(self) -> Row:
        """The values of `ADDED`."""
        return {name: getattr(self, name) for name in ADDED}


Chunks = Generator[Chunk, None, None]
"""To be closed when it is not read to its end."""


class Table(Protocol):
    """One file of rows. Its errors are TableError."""

    columns: tuple[str, ...] | None
    """None where each row has its own."""
    schema: Any
    """A `pyarrow.Schema`, or None."""

    def chunks(self, only: Collection[str] | None = None) -> Chunks:
        """All rows from the first; with `only`, without any other column."""
        ...


class TableWriter(Protocol):
    """Writes rows and what became of them. The file is whole once it is closed."""

    def write(self, chunk: Chunk, answers: Sequence[Answered]) -> None: ...
    def close(self) -> None: ...


def projected(row: Row | None, only: Collection[str] | None) -> Row | None:
    """The row with its columns, or `only` those of them."""
    if row is None or only is None:
        return row
    return {name: value for name, value in row.items() if name in only}
