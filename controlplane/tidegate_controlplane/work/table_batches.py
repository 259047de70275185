"""Batches over tables: what the runner asks for at their beginning and at their end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.store import batches
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.work.lines import Line
from tidegate_controlplane.work.spool import Spool
from tidegate_controlplane.work.table_parts import TableParts, Tables, as_rows
from tidegate_controlplane.work.table_target import TableTarget
from tidegate_controlplane.work.worker import Plane


class TableBatches:
    """Raises TableError and ObjectRefused for what trying again cannot help."""

    def __init__(self, plane: Plane) -> None:
        spool = Spool(plane.settings.spool_dir)
        self._plane = plane
        self._parts = TableParts(plane.settings.limits, spool)
        self._target = TableTarget(plane, self._parts, spool)

    async def begin(self, batch: Batch) -> None:
        """Fix which objects are read, once, so that a line has the same number ever after."""
        if batch.parts is None:
            parts = as_rows(await self._parts.listing(Tables.of(batch)))
            await self._plane.db.write(partial(batches.keep_parts, seen=batch, parts=parts))
            batch.parts = parts
        await self._target.begin(batch)

    def lines(self, batch: Batch) -> AsyncGenerator[Line]:
        """A line for each row."""
        return self._parts.lines(batch)

    async def write(self, batch: Batch, ending: BatchStatus) -> int:
        """Every part, the manifest, and the mark of completion; how many answers were lost."""
        return await self._target.write(batch, ending)
