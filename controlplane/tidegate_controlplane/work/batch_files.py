"""Writing a batch's output and error files.

Their keys follow from the batch, so that writing them again replaces them, and the transaction that
ends the batch is the one that names them in rows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.objects.base import Stored
from tidegate_controlplane.store import batches
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch, File, Invocation
from tidegate_controlplane.work.batch_output import error_line, file_name, output_line
from tidegate_controlplane.work.object_keys import batch_file_key
from tidegate_controlplane.work.payloads import result_of
from tidegate_controlplane.work.worker import Plane

OUTPUT_LINES = 100
"""Lines that are read from the database at once."""


class BatchFiles:
    """Writes the files of batches that end."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def write(self, batch: Batch, ending: BatchStatus) -> tuple[File | None, File | None]:
        """The output and the error file as rows still to be inserted; None for one without lines.

        Raises ObjectStoreError.
        """
        return (
            await self._write_file(batch, ending, succeeded=True),
            await self._write_file(batch, ending, succeeded=False),
        )

    async def _write_file(
        self, batch: Batch, ending: BatchStatus, *, succeeded: bool
    ) -> File | None:
        """The file of the lines that succeeded, or of the others; None when it has no line."""
        kind = "output" if succeeded else "error"
        key = batch_file_key(batch.project_id, batch.id, kind)
        lines = self._succeeded(batch) if succeeded else self._others(batch, ending)
        async with aclosing(lines):
            stored = await self._plane.objects.put(key, lines)
        # failpoint batch.file_written
        if not stored.bytes:
            await self._plane.objects.delete(key)
            return None
        kept_s = self._plane.settings.limits.result_retention_s
        return _file_row(batch, kind, key, stored, self._plane.clock.now(), kept_s)

    async def _succeeded(self, batch: Batch) -> AsyncGenerator[bytes]:
        async for row in self._lines(batch, succeeded=True):
            result = await self._plane.payloads.read(result_of(row))
            yield output_line(row, result)

    async def _others(self, batch: Batch, ending: BatchStatus) -> AsyncGenerator[bytes]:
        async for row in self._lines(batch, succeeded=False):
            yield error_line(row, ending)

    async def _lines(self, batch: Batch, *, succeeded: bool) -> AsyncGenerator[Invocation]:
        """In the order of the input file."""
        after = 0
        while True:
            rows = await self._plane.db.read(
                partial(
                    batches.lines_after,
                    batch_id=batch.id,
                    line_no=after,
                    limit=OUTPUT_LINES,
                    succeeded=succeeded,
                )
            )
            if not rows:
                return
            for row in rows:
                yield row
            after = rows[-1].line_no or 0


def _file_row(
    batch: Batch, kind: str, key: str, stored: Stored, now: datetime, kept_s: float
) -> File:
    asked_s = batch.output_expires_after_s
    return File(
        id=new_id("file"),
        project_id=batch.project_id,
        filename=file_name(batch, kind),
        purpose="batch_output",
        bytes=stored.bytes,
        sha256=stored.sha256,
        object_key=key,
        created_at=now,
        expires_at=now + timedelta(seconds=kept_s if asked_s is None else asked_s),
    )
