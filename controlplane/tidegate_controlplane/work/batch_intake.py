"""Making durable rows of a batch's input: it is surveyed as a whole, then becomes a row a line.

Both passes may be the second of their kind: surveying again changes nothing, and a line that has a
row gets no second one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial

from sqlmodel import Session

from tidegate.errors import TableError
from tidegate.protocol.work import MAX_BATCH_LINES, BatchError, InvocationState
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.objects.base import ObjectNotFound, ObjectRefused
from tidegate_controlplane.store import batches, files
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.invocations import LINE_PRIORITY
from tidegate_controlplane.store.tables import FAR, Batch, Invocation
from tidegate_controlplane.work.batch_line import (
    Faulty,
    Rules,
    Survey,
    Valid,
    claimed_ids,
    read_line,
)
from tidegate_controlplane.work.lines import Line, groups, split
from tidegate_controlplane.work.object_keys import line_key
from tidegate_controlplane.work.storage import check_still_there
from tidegate_controlplane.work.table_batches import TableBatches
from tidegate_controlplane.work.worker import Plane


class BatchIntake:
    """Reads inputs; `group_lines` of one become rows in one transaction."""

    def __init__(
        self, plane: Plane, catalog: Catalog, tables: TableBatches, group_lines: int
    ) -> None:
        self._plane = plane
        self._tables = tables
        self._catalog = catalog
        self._group_lines = group_lines
        self.on_queued: Callable[[], None] = lambda: None
        """Called after each commit that queued lines."""

    async def take(self, batch: Batch) -> list[BatchError] | None:
        """Make a row of each line that has none.

        Returns why the input as a whole cannot be run, empty when it can and every line has its
        row; None when the batch was cancelled meanwhile.
        """
        rules = self._rules(batch)
        try:
            if batch.source is not None:
                await self._tables.begin(batch)
            if errors := await self._survey(batch, rules):
                return errors
            # failpoint batch.surveyed
            return [] if await self._insert_lines(batch, rules) else None
        except (TableError, ObjectRefused) as error:
            return [BatchError(code="invalid_input", message=str(error), param="input")]
        except ObjectNotFound:
            return [_file_gone(batch.input_file_id)]

    async def _survey(self, batch: Batch, rules: Rules) -> list[BatchError]:
        """Why the file as a whole cannot be run, empty when it can; no row is made."""
        most = self._plane.settings.limits.batch_rows if batch.source else MAX_BATCH_LINES
        survey = Survey(most)
        async with aclosing(self._groups(batch, rules)) as found:
            async for group in found:
                survey.add(len(group), await asyncio.to_thread(claimed_ids, group, rules))
                if survey.is_over:
                    break
        return survey.finish()

    async def _insert_lines(self, batch: Batch, rules: Rules) -> bool:
        """Make a row of each line that has none; False when the batch was cancelled meanwhile."""
        known = await self._plane.db.read(lambda session: batches.last_line(session, batch.id))
        again = await self._lines_to_run_again(batch)
        async with aclosing(self._groups(batch, rules)) as found:
            async for group in found:
                fresh = [line for line in group if line.number > known and again(line.number)]
                if not fresh:
                    continue
                stored_at = self._plane.clock.monotonic()
                rows = await self._rows(batch, fresh, rules)
                add = partial(self._add, batch=batch, rows=rows, stored_at=stored_at)
                # failpoint batch.before_lines
                if not await self._plane.db.write(add):
                    return False
                # failpoint batch.lines_committed
                self.on_queued()
        return True

    def _add(
        self, session: Session, batch: Batch, rows: Sequence[Invocation], stored_at: float
    ) -> bool:
        grace_s = self._plane.settings.retention.orphan_grace_s
        check_still_there(stored_at, self._plane.clock.monotonic(), grace_s)
        return batches.add_lines(session, batch, rows)

    async def _lines_to_run_again(self, batch: Batch) -> Callable[[int], bool]:
        """Which lines are meant: all, or of a retry those that the batch before did not answer."""
        if batch.retry_of is None:
            return lambda _: True
        unanswered: Collection[int] = await self._plane.db.read(
            partial(batches.unanswered, batch_id=batch.retry_of)
        )
        return frozenset(unanswered).__contains__

    async def _rows(self, batch: Batch, group: Sequence[Line], rules: Rules) -> list[Invocation]:
        read = await asyncio.to_thread(lambda: [read_line(line, rules) for line in group])
        now = self._plane.clock.now()
        rows: list[Invocation] = []
        for line in read:
            if isinstance(line, Faulty):
                rows.append(_failed_row(batch, line, now))
            else:
                rows.append(await self._queued_row(batch, line, now))
        return rows

    async def _queued_row(self, batch: Batch, line: Valid, now: datetime) -> Invocation:
        settings = self._plane.settings
        row = _row(batch, line.line_no, line.custom_id, now)
        row.deployment_id = line.served.deployment_id
        row.model = line.served.asked_model
        row.status = InvocationState.QUEUED.value
        row.max_attempts = settings.work.max_attempts
        row.timeout_s = settings.limits.invocation_run_s
        row.affinity = line.affinity
        row.request_sha256 = hashlib.sha256(line.body).hexdigest()
        key = line_key(batch.project_id, batch.id, line.line_no)
        kept = await self._plane.payloads.keep(key, line.body)
        row.request, row.request_key = kept.inline, kept.key
        row.tokens = line.tokens
        return row

    async def _groups(self, batch: Batch, rules: Rules) -> AsyncGenerator[list[Line]]:
        lines = self._tables.lines(batch) if batch.source else self._file_lines(batch, rules)
        async with aclosing(lines):
            async for group in groups(lines, self._group_lines):
                yield group

    async def _file_lines(self, batch: Batch, rules: Rules) -> AsyncGenerator[Line]:
        file = await self._plane.db.read(
            lambda session: files.kept(session, batch.project_id, batch.input_file_id or "")
        )
        if file is None:
            raise ObjectNotFound(batch.input_file_id or "")
        async with aclosing(self._plane.objects.get(file.object_key)) as pieces:
            async for line in split(pieces, rules.max_line_bytes):
                yield line

    def _rules(self, batch: Batch) -> Rules:
        limits = self._plane.settings.limits
        return Rules(
            catalog=self._catalog,
            project_id=batch.project_id,
            endpoint=batch.endpoint,
            depth=limits.json_depth,
            max_line_bytes=limits.sync_body_bytes,
        )


def _row(batch: Batch, line_no: int, custom_id: str | None, now: datetime) -> Invocation:
    return Invocation(
        id=new_id("batch_req"),
        project_id=batch.project_id,
        key_id=batch.key_id,
        model="",
        endpoint=batch.endpoint,
        status=InvocationState.FAILED.value,
        priority=LINE_PRIORITY,
        timeout_s=0.0,
        request_sha256="",
        batch_id=batch.id,
        custom_id=custom_id,
        line_no=line_no,
        created_at=now,
        available_at=now,
        due_at=batch.expires_at or FAR,
    )


def _failed_row(batch: Batch, line: Faulty, now: datetime) -> Invocation:
    row = _row(batch, line.line_no, line.custom_id, now)
    row.model = line.model
    row.error = line.failure.model_dump()
    row.finished_at = now
    return row


def _file_gone(file_id: str | None) -> BatchError:
    return BatchError(
        code="input_file_missing",
        message=f"the content of {file_id} is gone",
        param="input_file_id",
    )
