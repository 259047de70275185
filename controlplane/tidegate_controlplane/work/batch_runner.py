"""Carrying a batch out, one step at a time, each of which may be the second of its kind.

Nothing is remembered between steps but rows and objects, so a process that dies at any instruction
is followed by one that goes on: surveying a file again changes nothing, lines that have a row get
no second one, files are written under keys that follow from the batch, and the transaction that
names them in rows is the one that ends the batch.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial

from sqlmodel import Session

from tidegate.protocol.work import MAX_BATCH_LINES, BatchError, BatchStatus, InvocationState
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.objects.base import ObjectNotFound, Stored
from tidegate_controlplane.store import batches, files, invocations
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.invocations import LINE_PRIORITY
from tidegate_controlplane.store.tables import FAR, Batch, File, Invocation
from tidegate_controlplane.work.batch_line import (
    Faulty,
    Rules,
    Survey,
    Valid,
    claimed_ids,
    read_line,
)
from tidegate_controlplane.work.batch_output import error_line, file_name, output_line
from tidegate_controlplane.work.batch_steps import Step, next_step
from tidegate_controlplane.work.lines import GROUP_LINES, Line, groups, split
from tidegate_controlplane.work.loop import PAUSE_AFTER_ERROR_S
from tidegate_controlplane.work.object_keys import batch_file_key, line_key
from tidegate_controlplane.work.outcome import Interrupted
from tidegate_controlplane.work.payloads import Payload
from tidegate_controlplane.work.worker import Plane, Worker

log = logging.getLogger(__name__)

OUTPUT_LINES = 100
"""Lines that are read from the database at once."""


class BatchRunner:
    """Gives every unfinished batch its next step, each batch in a task of its own."""

    def __init__(
        self, plane: Plane, catalog: Catalog, worker: Worker, group_lines: int = GROUP_LINES
    ) -> None:
        self._plane = plane
        self._group_lines = group_lines
        self._catalog = catalog
        self._worker = worker
        self._stepping: dict[str, asyncio.Task[bool]] = {}
        self.on_queued: Callable[[], None] = lambda: None
        """Called after each commit that queued lines."""
        self.on_progress: Callable[[], None] = lambda: None
        """Called when another step may follow at once."""

    async def tick(self) -> None:
        """Begin the next step of every batch that is not in the middle of one."""
        for batch in await self._plane.db.read(batches.unfinished):
            if batch.id not in self._stepping:
                task = asyncio.create_task(self._try_step(batch), name=f"step of {batch.id}")
                self._stepping[batch.id] = task
                task.add_done_callback(partial(self._ended, batch.id))

    async def stop(self) -> None:
        """Interrupt the steps; they begin again in the next process."""
        tasks = list(self._stepping.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def step(self, batch: Batch) -> bool:
        """Do what `batch` needs next; whether there may be more to do at once."""
        now = self._plane.clock.now()
        lines = await self._plane.db.read(lambda session: batches.lines_by_state(session, batch.id))
        overdue = batch.expires_at is not None and batch.expires_at <= now
        match next_step(BatchStatus(batch.status), lines, overdue=overdue):
            case Step.VALIDATE:
                await self._validate(batch)
            case Step.END_LINES:
                await self._end_lines(batch, now)
                return InvocationState.QUEUED in lines
            case Step.FINALIZE:
                await self._change(batch, BatchStatus.FINALIZING, finalizing_at=now)
                # failpoint batch.finalizing
            case Step.COMPLETE:
                await self._close(batch, BatchStatus.COMPLETED, completed_at=now)
            case Step.EXPIRE:
                await self._close(batch, BatchStatus.EXPIRED, expired_at=now)
            case Step.CANCEL:
                await self._close(batch, BatchStatus.CANCELLED, cancelled_at=now)
            case Step.WAIT | Step.NOTHING:
                return False
        return True

    async def _try_step(self, batch: Batch) -> bool:
        try:
            return await self.step(batch)
        except Exception:
            log.exception("a step of %s failed; trying again", batch.id)
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            return True

    def _ended(self, batch_id: str, task: asyncio.Task[bool]) -> None:
        del self._stepping[batch_id]
        if not task.cancelled() and task.result():
            self.on_progress()

    async def _change(self, batch: Batch, after: BatchStatus, **values: object) -> bool:
        return await self._plane.db.write(
            lambda session: batches.change(session, batch, after, **values)
        )

    # --- validating ---

    async def _validate(self, batch: Batch) -> None:
        rules = self._rules(batch)
        try:
            errors = await self._survey(batch, rules)
            # failpoint batch.surveyed
            if not errors and not await self._insert_lines(batch, rules):
                return
        except ObjectNotFound:
            errors = [_file_gone(batch.input_file_id)]
        now = self._plane.clock.now()
        if errors:
            said = [error.model_dump() for error in errors]
            await self._change(batch, BatchStatus.FAILED, failed_at=now, errors=said)
            return

        def unit(session: Session) -> None:
            models = batches.models(session, batch.id, 2)
            batches.change(
                session,
                batch,
                BatchStatus.IN_PROGRESS,
                in_progress_at=now,
                total=sum(batches.lines_by_state(session, batch.id).values()),
                model=models[0] if len(models) == 1 else None,
            )

        # failpoint batch.before_begin
        await self._plane.db.write(unit)
        # failpoint batch.begun

    async def _survey(self, batch: Batch, rules: Rules) -> list[BatchError]:
        """Why the file as a whole cannot be run, empty when it can; no row is made."""
        survey = Survey(MAX_BATCH_LINES)
        async with aclosing(self._groups(batch, rules)) as found:
            async for group in found:
                survey.add(len(group), await asyncio.to_thread(claimed_ids, group, rules))
                if survey.is_over:
                    break
        return survey.finish()

    async def _insert_lines(self, batch: Batch, rules: Rules) -> bool:
        """Make a row of each line that has none; False when the batch was cancelled meanwhile."""
        known = await self._plane.db.read(lambda session: batches.last_line(session, batch.id))
        async with aclosing(self._groups(batch, rules)) as found:
            async for group in found:
                fresh = [line for line in group if line.number > known]
                if not fresh:
                    continue
                rows = await self._rows(batch, fresh, rules)
                # failpoint batch.before_lines
                if not await self._plane.db.write(
                    partial(batches.add_lines, seen=batch, lines=rows)
                ):
                    return False
                # failpoint batch.lines_committed
                self.on_queued()
        return True

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
        row.model = line.served.name
        row.status = InvocationState.QUEUED.value
        row.max_attempts = settings.work.max_attempts
        row.timeout_s = settings.limits.invocation_run_s
        row.request_sha256 = hashlib.sha256(line.body).hexdigest()
        key = line_key(batch.project_id, batch.id, line.line_no)
        kept = await self._plane.payloads.keep(key, line.body)
        row.request, row.request_key = kept.inline, kept.key
        row.tokens = line.tokens
        return row

    async def _groups(self, batch: Batch, rules: Rules) -> AsyncGenerator[list[Line]]:
        file = await self._plane.db.read(
            lambda session: files.get(session, batch.project_id, batch.input_file_id)
        )
        if file is None:
            raise ObjectNotFound(batch.input_file_id)
        async with aclosing(self._plane.objects.get(file.object_key)) as pieces:
            lines = split(pieces, rules.max_line_bytes)
            async for group in groups(lines, self._group_lines):
                yield group

    def _rules(self, batch: Batch) -> Rules:
        limits = self._plane.settings.limits
        return Rules(
            catalog=self._catalog,
            project_id=batch.project_id,
            endpoint=batch.endpoint,
            depth=limits.json_depth,
            max_line_bytes=limits.sync_body_bytes,
        )

    # --- ending ---

    async def _end_lines(self, batch: Batch, now: datetime) -> None:
        """End what is queued, a part in each transaction, and hang up on what runs."""
        running = await self._plane.db.write(
            lambda session: invocations.end_lines(session, batch.id, InvocationState.CANCELED, now)
        )
        self._worker.interrupt(running, Interrupted.CANCELED)

    async def _close(self, batch: Batch, after: BatchStatus, **moments: datetime) -> None:
        """Write the files, then end the batch and name them in one transaction."""
        written = [
            await self._write_file(batch, after, succeeded=True),
            await self._write_file(batch, after, succeeded=False),
        ]
        output, errors = written
        now = self._plane.clock.now()

        def unit(session: Session) -> None:
            ids = {
                "output_file_id": output.id if output else None,
                "error_file_id": errors.id if errors else None,
            }
            if batches.change(session, batch, after, **ids, **moments):
                for file in filter(None, written):
                    file.created_at = now
                    files.insert(session, file)
            # failpoint batch.before_close

        await self._plane.db.write(unit)
        # failpoint batch.closed

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
        return _file_row(batch, kind, key, stored)

    async def _succeeded(self, batch: Batch) -> AsyncGenerator[bytes]:
        async for row in self._lines(batch, succeeded=True):
            result = await self._plane.payloads.read(Payload(row.result, row.result_key))
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


def _file_row(batch: Batch, kind: str, key: str, stored: Stored) -> File:
    return File(
        id=new_id("file"),
        project_id=batch.project_id,
        filename=file_name(batch, kind),
        purpose="batch_output",
        bytes=stored.bytes,
        sha256=stored.sha256,
        object_key=key,
    )


def _file_gone(file_id: str) -> BatchError:
    return BatchError(
        code="input_file_missing",
        message=f"the content of {file_id} is gone",
        param="input_file_id",
    )
