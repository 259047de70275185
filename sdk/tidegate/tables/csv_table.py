"""CSV with a header. Every value is text, and stays the text it was: `007` is not 7."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tidegate.errors import TableError
from tidegate.tables.base import (
    ADDED,
    CHUNK_ROWS,
    MAX_ROW_BYTES,
    Answered,
    Chunk,
    Chunks,
    Row,
    projected,
)
from tidegate.tables.text import opened


class CsvTable:
    """A `Table`."""

    schema = None

    def __init__(self, path: Path, *, compressed: bool) -> None:
        self._path = path
        self._compressed = compressed
        with opened(path, compressed) as file:
            header = next(_records(path, file), None)
        if header is None:
            raise TableError(f"{path.name} is empty; a CSV file begins with its column names")
        if len(set(header)) < len(header):
            raise TableError(f"{path.name} has two columns of one name: {', '.join(header)}")
        self.columns: tuple[str, ...] | None = tuple(header)

    def chunks(self, only: Collection[str] | None = None) -> Chunks:
        """All rows; a row with too few or too many fields raises TableError."""
        with opened(self._path, self._compressed) as file:
            rows = (projected(row, only) for row in self._rows(file))
            while found := list(islice(rows, CHUNK_ROWS)):
                yield Chunk(found)

    def _rows(self, file: Any) -> Iterator[Row]:
        columns = self.columns or ()
        records = _records(self._path, file)
        next(records, None)
        for number, record in enumerate(records, start=1):
            if len(record) != len(columns):
                raise TableError(
                    f"{self._path.name} row {number} has {len(record)} fields, its header "
                    f"{len(columns)}"
                )
            yield dict(zip(columns, record, strict=True))


class CsvWriter:
    """A `TableWriter`. A vector is written as JSON."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, [*columns, *ADDED])
        self._writer.writeheader()

    def write(self, chunk: Chunk, answers: Sequence[Answered]) -> None:
        for row, answered in zip(chunk.rows, answers, strict=True):
            added = answered.columns
            if isinstance(answered.answer, list):
                added["answer"] = json.dumps(answered.answer)
            self._writer.writerow((row or {}) | added)

    def close(self) -> None:
        self._file.close()


def _records(path: Path, file: Any) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    try:
        yield from filter(None, csv.reader(file, strict=True))
    except csv.Error as error:
        raise TableError(f"{path.name} is not CSV: {error}") from error
