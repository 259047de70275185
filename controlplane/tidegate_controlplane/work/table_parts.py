"""The objects that a batch over tables reads and writes, and their rows as lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pydantic_core import to_json

from tidegate.errors import TableError
from tidegate.protocol.batch import TableFormat, TableInput, TableOutput
from tidegate.tables.base import Chunk, Row, Table
from tidegate.tables.open import COMPRESSED, check_columns, open_table
from tidegate.tables.request import RowError, RowRequest, row_request
from tidegate_controlplane.objects.base import ObjectNotFound
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.objects.version import ObjectVersion, place_of
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.work.lines import Line
from tidegate_controlplane.work.spool import Spool

if TYPE_CHECKING:
    from tidegate_controlplane.objects.bucket import Bucket

MAX_PARTS = 10_000
ENDINGS = {TableFormat.JSONL: ".jsonl", TableFormat.CSV: ".csv", TableFormat.PARQUET: ".parquet"}


@dataclass(frozen=True)
class Tables:
    """What a batch says of its tables, read back from its row."""

    source: TableInput
    target: TableOutput

    @classmethod
    def of(cls, batch: Batch) -> Tables:
        return cls(
            TableInput.model_validate_json(to_json(batch.source)),
            TableOutput.model_validate_json(to_json(batch.target)),
        )

    @property
    def target_format(self) -> TableFormat:
        return self.target.format or self.source.format

    def output_key(self, part: ObjectVersion) -> str:
        """`in/2026/part-0.csv.gz`, under `in/`, becomes `2026/part-0.out.csv` under the target."""
        _, source = place_of(self.source.uri)
        folder = source if source.endswith("/") or not source else source.rpartition("/")[0] + "/"
        name = part.key.removeprefix(folder).removesuffix(COMPRESSED)
        stem = name.removesuffix(ENDINGS[self.source.format])
        return f"{place_of(self.target.uri)[1]}{stem}.out{ENDINGS[self.target_format]}"


class TableParts:
    """Reads the parts of batches, one at a time, through files of this process."""

    def __init__(self, limits: LimitSettings, spool: Spool) -> None:
        self._limits = limits
        self._spool = spool

    async def listing(self, tables: Tables) -> list[ObjectVersion]:
        """Every object to be read. Raises TableError and ObjectRefused when they cannot be."""
        bucket, prefix = place_of(tables.source.uri)
        parts = await (await open_bucket(bucket)).listing(prefix, MAX_PARTS)
        if not parts:
            raise TableError(f"there is no object under {tables.source.uri}")
        if len(parts) > MAX_PARTS:
            raise TableError(f"there are more than {MAX_PARTS} objects under {tables.source.uri}")
        most = self._limits.batch_part_bytes
        if large := [part.key for part in parts if part.bytes > most]:
            raise TableError(f"{large[0]} is larger than {most} bytes; split it")
        _check_outputs(tables, parts)
        return parts

    async def lines(self, batch: Batch) -> AsyncGenerator[Line]:
        """A line for each row of every part, counted from 1 over all of them.

        Raises TableError and ObjectRefused.
        """
        tables = Tables.of(batch)
        wanted = row_request(tables.source, batch.endpoint)
        number = 0
        for part in parts_of(batch):
            async with self.opened(tables, part) as table:
                check_columns(table, part.key, wanted.columns)
                async with aclosing(chunks(table, wanted.columns)) as found:
                    async for chunk in found:
                        for row in chunk.rows:
                            number += 1
                            yield _line(number, row, wanted, batch.endpoint)

    @asynccontextmanager
    async def opened(self, tables: Tables, part: ObjectVersion) -> AsyncIterator[Table]:
        """The part as a table, as long as it is as it was listed."""
        bucket = await open_bucket(place_of(tables.source.uri)[0])
        with self._spool.place(part.key) as path:
            await bucket.download(part, path)
            compressed = part.key.endswith(COMPRESSED)
            yield await asyncio.to_thread(
                lambda: open_table(path, tables.source.format, compressed=compressed)
            )


def parts_of(batch: Batch) -> list[ObjectVersion]:
    """Those that were listed when the batch began. Raises ObjectNotFound before."""
    if batch.parts is None:
        raise ObjectNotFound(f"the parts of {batch.id} were not listed yet")
    return [ObjectVersion(**part) for part in batch.parts]


def as_rows(parts: Sequence[ObjectVersion]) -> list[dict[str, object]]:
    """The same, as they are kept with the batch."""
    return [asdict(part) for part in parts]


async def chunks(table: Table, only: Collection[str] | None = None) -> AsyncGenerator[Chunk]:
    """The chunks of a table, read beside the event loop."""
    found = table.chunks(only)
    try:
        while (chunk := await in_thread(next, found, None)) is not None:
            yield chunk
    finally:
        await in_thread(found.close)


async def open_bucket(name: str) -> Bucket:
    return await asyncio.to_thread(_open_bucket, name)


def _open_bucket(name: str) -> Bucket:
    from tidegate_controlplane.objects.bucket import Bucket  # boto3 takes half a second to import

    return Bucket(name)


def _check_outputs(tables: Tables, parts: Sequence[ObjectVersion]) -> None:
    inputs_of: dict[str, str] = {}
    for part in parts:
        first = inputs_of.setdefault(tables.output_key(part), part.key)
        if first != part.key:
            raise TableError(f"{first} and {part.key} would be written to the same object")


def _line(number: int, row: Row | None, wanted: RowRequest, endpoint: str) -> Line:
    try:
        document = {
            "custom_id": wanted.custom_id(row, number),
            "method": "POST",
            "url": endpoint,
            "body": wanted.body(row),
        }
    except RowError as error:
        return Line(number, None, fault=str(error))
    return Line(number, to_json(document))
