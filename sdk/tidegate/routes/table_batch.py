"""A batch over a table of this machine: its rows go out as requests, its answers come back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

from tidegate.answers import BatchResult
from tidegate.errors import ConfigurationError, TableError
from tidegate.flow.steps import Flow
from tidegate.protocol.batch import RowTerms
from tidegate.protocol.work import BatchObject
from tidegate.routes import batches, files
from tidegate.tables.base import Answered, Chunk, Row, Table, TableWriter
from tidegate.tables.open import (
    COMPRESSED,
    check_columns,
    check_formats,
    create_table,
    format_of,
    open_table,
)
from tidegate.tables.request import EMBEDDINGS, RowError, RowRequest, answered, row_request

MEMORY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class TableJob:
    """A table, and how its rows become requests."""

    path: Path
    table: Table
    wanted: RowRequest
    endpoint: str


def job(
    source: str | PathLike[str],
    model: str,
    endpoint: str,
    *,
    column: str | None,
    template: Mapping[str, Any] | None,
    id_column: str | None,
) -> TableJob:
    """Raises TableError for a table that cannot be read, or whose columns do not fit."""
    path = Path(fspath(source)).expanduser()
    table = open_table(path, format_of(path), compressed=path.suffix == COMPRESSED)
    terms = RowTerms(
        model=None if "model" in (template or {}) else model,
        column=column,
        id_column=id_column,
        template=None if template is None else dict(template),
    )
    wanted = row_request(terms, endpoint)
    check_columns(table, path.name, wanted.columns)
    return TableJob(path, table, wanted, endpoint)


def begin(job: TableJob, terms: batches.Terms, resume: str | None) -> Flow[BatchObject]:
    """Send the rows and begin; or find the batch that was begun from them before."""
    if resume is not None:
        return (yield from batches.get(resume))
    with opened(job) as (file, filename):
        return (yield from batches.start(file, filename, job.endpoint, terms))


@contextmanager
def opened(job: TableJob) -> Iterator[tuple[BinaryIO, str]]:
    """The requests as one seekable file, and its name; rows that can be none are left out."""
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        number = 0
        for chunk in job.table.chunks(job.wanted.columns):
            for row in chunk.rows:
                number += 1
                file.write(_line(job, row, number))
        if file.tell() == 0:
            raise ConfigurationError(f"{job.path.name} has no row that can be a request")
        yield file, f"{job.path.stem}.jsonl"  # type: ignore[misc]


def collect(batch: BatchObject, job: TableJob, output: str | PathLike[str]) -> Flow[None]:
    """Write every row with what became of it, once the batch has ended.

    The file is there whole, or as it was before. Raises TableError.
    """
    path = Path(fspath(output)).expanduser()
    check_formats(format_of(job.path), format_of(path))
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as failures:
        for file_id, sink in ((batch.output_file_id, answers), (batch.error_file_id, failures)):
            if file_id is not None:
                yield from files.save(file_id, sink)
                sink.seek(0)
        with _whole(path) as unfinished:
            vectors = job.endpoint == EMBEDDINGS
            writer = create_table(unfinished, format_of(path), job.table, vectors=vectors)
            try:
                _join(job, writer, _Results(answers), _Results(failures))
            finally:
                writer.close()


class _Results:
    """The lines of one file, of which the next one is known. They stand in the rows' order."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = (BatchResult.model_validate_json(line) for line in file if line.strip())
        self._next = next(self._lines, None)

    def take(self, custom_id: str) -> BatchResult | None:
        """The line of this row, if it is in this file."""
        found = self._next
        if found is None or found.custom_id != custom_id:
            return None
        self._next = next(self._lines, None)
        return found


def _join(job: TableJob, writer: TableWriter, answers: _Results, failures: _Results) -> None:
    number = 0
    for chunk in job.table.chunks():
        found = [
            _answered(job, row, number + at, answers, failures)
            for at, row in enumerate(chunk.rows, start=1)
        ]
        number += len(chunk.rows)
        writer.write(Chunk(chunk.rows, chunk.batch), found)


def _answered(
    job: TableJob, row: Row | None, number: int, answers: _Results, failures: _Results
) -> Answered:
    try:
        job.wanted.body(row)
        custom_id = job.wanted.custom_id(row, number)
    except RowError as error:
        return Answered(error=f"invalid_row: {error}")
    if (good := answers.take(custom_id)) and good.response is not None:
        return answered(good.response.body)
    if bad := failures.take(custom_id):
        return Answered(error=bad.failure)
    return Answered(error="the batch has no line for this row; was the table changed meanwhile?")


def _line(job: TableJob, row: Row | None, number: int) -> bytes:
    try:
        line: Mapping[str, Any] = {
            "custom_id": job.wanted.custom_id(row, number),
            "method": "POST",
            "url": job.endpoint,
            "body": job.wanted.body(row),
        }
    except RowError:
        return b""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end, and is gone after an error."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
