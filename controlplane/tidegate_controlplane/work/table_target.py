"""Writing the tables of a batch that ends: each part's rows, with the answers beside them.

A part is seen whole or not at all, and writing it again writes the same. The manifest comes last,
and after it, of a completed batch, an empty `_SUCCESS`: who finds that finds everything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial

from pydantic_core import from_json, to_json

from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate.tables.base import Answered, Table, TableWriter
from tidegate.tables.open import create_table
from tidegate.tables.request import EMBEDDINGS, answered
from tidegate_controlplane.encryption.errors import ObjectDamaged
from tidegate_controlplane.objects.base import ObjectNotFound
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.objects.version import ObjectVersion, place_of
from tidegate_controlplane.store import batches
from tidegate_controlplane.store.tables import Batch, Invocation
from tidegate_controlplane.work.batch_output import failure_text, unreadable_text
from tidegate_controlplane.work.payloads import result_of
from tidegate_controlplane.work.spool import Spool
from tidegate_controlplane.work.table_parts import (
    TableParts,
    Tables,
    chunks,
    open_bucket,
    parts_of,
)
from tidegate_controlplane.work.worker import Plane

log = logging.getLogger(__name__)

MANIFEST, SUCCESS = "_manifest.json", "_SUCCESS"


@dataclass(frozen=True)
class Written:
    """One part, as the manifest tells of it."""

    input: str
    output: str
    rows: int
    answered: int


@dataclass(frozen=True)
class _Lines:
    """Whose lines are written, and how their batch ends."""

    batch: Batch
    ids: Sequence[str]
    """Of the batch, and of those before it that it is a retry of; the newest first."""
    ending: BatchStatus
    unreadable: set[int] = field(default_factory=set)
    """Lines of this batch that succeeded, and whose answers could not be read back."""


class TableTarget:
    """Raises ObjectRefused and TableError for what trying again cannot help."""

    def __init__(self, plane: Plane, parts: TableParts, spool: Spool) -> None:
        self._plane = plane
        self._parts = parts
        self._spool = spool

    async def begin(self, batch: Batch) -> None:
        """Show that the target can be written, and that what lies there is not complete."""
        bucket, prefix = place_of(Tables.of(batch).target.uri)
        target = await open_bucket(bucket)
        await target.delete(prefix + SUCCESS)
        await target.put(prefix + MANIFEST, _manifest(batch, BatchStatus.IN_PROGRESS, []))

    async def write(self, batch: Batch, ending: BatchStatus) -> int:
        """Returns how many lines of this batch succeeded and could not be read back."""
        bucket, prefix = place_of(Tables.of(batch).target.uri)
        target = await open_bucket(bucket)
        ids = await self._plane.db.read(partial(batches.chain, batch=batch))
        lines = _Lines(batch, ids, ending)
        written: list[Written] = []
        first = 1
        for part in parts_of(batch):
            done = await self._write_part(lines, part, first)
            written.append(done)
            first += done.rows
        await target.put(prefix + MANIFEST, _manifest(batch, ending, written))
        if ending is BatchStatus.COMPLETED:
            await target.put(prefix + SUCCESS, b"")
        return len(lines.unreadable)

    async def _write_part(self, lines: _Lines, part: ObjectVersion, first: int) -> Written:
        """The part whose first row is the line `first`."""
        tables = Tables.of(lines.batch)
        key = tables.output_key(part)
        target = await open_bucket(place_of(tables.target.uri)[0])
        async with self._parts.opened(tables, part) as table:
            with self._spool.place(key) as path:
                vectors = lines.batch.endpoint == EMBEDDINGS
                make = partial(create_table, vectors=vectors)
                writer: TableWriter = await in_thread(make, path, tables.target_format, table)
                try:
                    rows, good = await self._fill(writer, table, lines, first)
                finally:
                    await in_thread(writer.close)
                await target.upload(path, key)
        return Written(part.key, key, rows, good)

    async def _fill(
        self, writer: TableWriter, table: Table, lines: _Lines, first: int
    ) -> tuple[int, int]:
        """Write every row; how many there were, and how many were answered."""
        rows = good = 0
        async with aclosing(chunks(table)) as found:
            async for chunk in found:
                start = first + rows
                answers = await self._answers(lines, start, start + len(chunk.rows) - 1)
                await in_thread(writer.write, chunk, answers)
                rows += len(chunk.rows)
                good += sum(one.error is None for one in answers)
        return rows, good

    async def _answers(self, lines: _Lines, first: int, last: int) -> list[Answered]:
        """Of each line from `first` to `last`: the newest answer, else the newest failure."""
        found = await self._plane.db.read(
            partial(batches.lines_between, batch_ids=lines.ids, first=first, last=last)
        )
        best: dict[int, Invocation] = {}
        for row in sorted(found, key=lambda row: lines.ids.index(row.batch_id or ""), reverse=True):
            known = best.get(row.line_no or 0)
            if known is None or known.status != InvocationState.SUCCEEDED:
                best[row.line_no or 0] = row
        return [await self._answer(best.get(line), lines) for line in range(first, last + 1)]

    async def _answer(self, row: Invocation | None, lines: _Lines) -> Answered:
        if row is None or row.status != InvocationState.SUCCEEDED:
            return Answered(error=failure_text(row, lines.ending))
        try:
            result = await self._plane.payloads.read(result_of(row))
        except (ObjectDamaged, ObjectNotFound) as error:
            log.error("the answer of %s in %s is lost: %s", row.id, row.batch_id, error)
            if row.batch_id == lines.batch.id:
                lines.unreadable.add(row.line_no or 0)
            return Answered(error=unreadable_text(error))
        return answered(from_json(result))


def _manifest(batch: Batch, status: BatchStatus, parts: Sequence[Written]) -> bytes:
    return to_json(
        {
            "batch": batch.id,
            "status": status.value,
            "endpoint": batch.endpoint,
            "input": (batch.source or {}).get("uri"),
            "rows": sum(part.rows for part in parts),
            "answered": sum(part.answered for part in parts),
            "parts": [asdict(part) for part in parts],
        },
        indent=2,
    )
