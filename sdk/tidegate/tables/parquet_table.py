"""Parquet, read and written a record batch at a time.

What is held is a batch of rows and the pages they stand in, not a file and not a row group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidegate.errors import TableError
from tidegate.tables.base import ADDED, CHUNK_ROWS, Answered, Chunk, Chunks

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise TableError(
        "Parquet needs pyarrow; install it with: pip install 'tidegate[tables]'"
    ) from missing


class ParquetTable:
    """A `Table`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _said_plainly(path):
            self.schema: Any = pq.read_schema(path)
        self.columns: tuple[str, ...] | None = tuple(self.schema.names)

    def chunks(self, only: Collection[str] | None = None) -> Chunks:
        """All rows; `only` are read from the file."""
        columns = None if only is None else [name for name in self.columns or () if name in only]
        with _said_plainly(self._path), pq.ParquetFile(self._path, pre_buffer=False) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=columns, use_threads=False):
                yield Chunk(batch.to_pylist(), batch)


class ParquetWriter:
    """A `TableWriter`. Rows of a text format become columns of text."""

    def __init__(self, path: Path, columns: Sequence[str], schema: Any, *, vectors: bool) -> None:
        own = schema or pa.schema([(name, pa.string()) for name in columns])
        answer = pa.list_(pa.float32()) if vectors else pa.string()
        types = (answer, pa.string(), pa.int64(), pa.int64())
        self._added = pa.schema(list(zip(ADDED, types, strict=True)))
        self._own = own
        whole = pa.schema([*own, *self._added], metadata=own.metadata)
        self._writer = pq.ParquetWriter(path, whole)

    def write(self, chunk: Chunk, answers: Sequence[Answered]) -> None:
        own = chunk.batch or pa.RecordBatch.from_pylist(list(chunk.rows), schema=self._own)
        added = pa.RecordBatch.from_pylist([one.columns for one in answers], schema=self._added)
        arrays = [*own.columns, *added.columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._writer.schema))

    def close(self) -> None:
        self._writer.close()


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path.name} is not a Parquet file that can be read: {error}") from error
