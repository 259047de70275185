"""Writing a batch's output and error files.

Their keys follow from the batch, so that writing them again replaces them, and the transaction that
ends the batch is the one that names them in rows.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.encryption.errors import ObjectDamaged
from tidegate_controlplane.objects.base import ObjectNotFound, Stored
from tidegate_controlplane.store import batches
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch, File, Invocation
from tidegate_controlplane.work.batch_output import (
    error_line,
    file_name,
    output_line,
    unreadable_line,
)
from tidegate_controlplane.work.object_keys import batch_file_key
from tidegate_controlplane.work.payloads import result_of
from tidegate_controlplane.work.worker import Plane

log = logging.getLogger(__name__)

OUTPUT_LINES = 100
"""Lines that are read from the database at once."""


@dataclass(frozen=True)
class Written:
    """The files as rows still to be inserted; None for one without lines."""

    output: File | None
    errors: File | None
    unreadable: int
    """Lines that succeeded, and whose answers could not be read back."""

    @property
    def ids(self) -> dict[str, str | None]:
        """As the row of the batch names them."""
        return {
            "output_file_id": self.output.id if self.output else None,
            "error_file_id": self.errors.id if self.errors else None,
        }


@dataclass(frozen=True)
class _Unreadable:
    line_no: int
    text: bytes
    """Its line in the error file."""


class BatchFiles:
    """Writes the files of batches that end."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def write(self, batch: Batch, ending: BatchStatus) -> Written:
        """Both files. A line whose answer cannot be read back is one of the error file.

        Raises ObjectStoreError.
        """
        unreadable: list[_Unreadable] = []
        output = await self._write_file(batch, "output", self._succeeded(batch, unreadable))
        others = self._others(batch, ending, unreadable)
        return Written(output, await self._write_file(batch, "error", others), len(unreadable))

    async def _write_file(
        self, batch: Batch, kind: str, lines: AsyncGenerator[bytes]
    ) -> File | None:
        """None when it has no line."""
        key = batch_file_key(batch.project_id, batch.id, kind)
        async with aclosing(lines):
            stored = await self._plane.objects.put(key, lines)
        # failpoint batch.file_written
        if not stored.bytes:
            await self._plane.objects.delete(key)
            return None
        kept_s = self._plane.settings.limits.result_retention_s
        return _file_row(batch, kind, key, stored, self._plane.clock.now(), kept_s)

    async def _succeeded(
        self, batch: Batch, unreadable: list[_Unreadable]
    ) -> AsyncGenerator[bytes]:
        """The lines that succeeded; those whose answer does not open become `unreadable`."""
        async for row in self._lines(batch, succeeded=True):
            try:
                result = await self._plane.payloads.read(result_of(row))
            except (ObjectDamaged, ObjectNotFound) as error:
                log.error("the answer of %s in %s is lost: %s", row.id, batch.id, error)
                unreadable.append(_Unreadable(row.line_no or 0, unreadable_line(row, error)))
            else:
                yield output_line(row, result)

    async def _others(
        self, batch: Batch, ending: BatchStatus, unreadable: Iterable[_Unreadable]
    ) -> AsyncGenerator[bytes]:
        """The lines that did not succeed, and among them, in their places, the unreadable ones."""
        waiting = deque(unreadable)
        async for row in self._lines(batch, succeeded=False):
            while waiting and waiting[0].line_no < (row.line_no or 0):
                yield waiting.popleft().text
            yield error_line(row, ending)
        for one in waiting:
            yield one.text

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
