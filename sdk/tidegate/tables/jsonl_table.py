"""JSON lines: an object a line, each with columns of its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from pydantic_core import to_json

from tidegate.errors import TableError
from tidegate.tables.base import CHUNK_ROWS, MAX_ROW_BYTES, Answered, Chunk, Chunks, Row, projected
from tidegate.tables.text import opened


class JsonlTable:
    """A `Table`. Blank lines are no rows; a line that is no object is a row without columns."""

    schema = None
    columns: tuple[str, ...] | None = None

    def __init__(self, path: Path, *, compressed: bool) -> None:
        self._path = path
        self._compressed = compressed

    def chunks(self, only: Collection[str] | None = None) -> Chunks:
        """All rows; a line that is too long raises TableError."""
        with opened(self._path, self._compressed) as file:
            rows = (projected(_row(line), only) for line in _lines(self._path, file))
            while found := list(islice(rows, CHUNK_ROWS)):
                yield Chunk(found)


class JsonlWriter:
    """A `TableWriter`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, chunk: Chunk, answers: Sequence[Answered]) -> None:
        for row, answered in zip(chunk.rows, answers, strict=True):
            line = to_json((row or {}) | answered.columns, bytes_mode="base64", fallback=str)
            self._file.write(line + b"\n")

    def close(self) -> None:
        self._file.close()


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise TableError(f"{path.name} line {number} is longer than {MAX_ROW_BYTES} bytes")
        if line.strip():
            yield line


def _row(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
