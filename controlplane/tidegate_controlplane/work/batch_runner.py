"""Carrying a batch out, one step at a time, each of which may be the second of its kind.

Nothing is remembered between steps but rows and objects, so a process that dies at any instruction
is followed by one that goes on: surveying a file again changes nothing, lines that have a row get
no second one, files are written under keys that follow from the batch, and the transaction that
names them in rows is the one that ends the batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from sqlmodel import Session

from tidegate.errors import TableError
from tidegate.protocol.work import BatchError, BatchStatus, InvocationState
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.objects.base import ObjectRefused, ObjectStoreError
from tidegate_controlplane.store import batches, endings, files
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.work.batch_files import BatchFiles
from tidegate_controlplane.work.batch_intake import BatchIntake
from tidegate_controlplane.work.batch_steps import Step, gives_up, next_step
from tidegate_controlplane.work.lines import GROUP_LINES
from tidegate_controlplane.work.loop import PAUSE_AFTER_ERROR_S
from tidegate_controlplane.work.outcome import Interrupted
from tidegate_controlplane.work.table_batches import TableBatches
from tidegate_controlplane.work.worker import Plane, Worker

log = logging.getLogger(__name__)


class BatchRunner:
    """Gives every unfinished batch its next step, each batch in a task of its own."""

    def __init__(
        self, plane: Plane, catalog: Catalog, worker: Worker, group_lines: int = GROUP_LINES
    ) -> None:
        self._plane = plane
        self._worker = worker
        self._files = BatchFiles(plane)
        self._stepping: dict[str, asyncio.Task[bool]] = {}
        self._tables = TableBatches(plane)
        self.intake = BatchIntake(plane, catalog, self._tables, group_lines)
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
        lines = await self._lines(batch)
        match next_step(BatchStatus(batch.status), lines, overdue=_is_overdue(batch, now)):
            case Step.VALIDATE:
                await self._validate(batch)
            case Step.END_LINES:
                await self._end_lines(batch, now)
                return lines.queued
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
            try:
                return await self.step(batch)
            except ObjectStoreError as error:
                log.warning("a step of %s cannot use the storage: %s", batch.id, error)
                await self._hold_up(batch, error)
        except Exception:
            log.exception("a step of %s failed; trying again", batch.id)
        await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        return True

    async def _hold_up(self, batch: Batch, error: ObjectStoreError) -> None:
        """Show why the batch does not go on; or let it fail, when its window has passed."""
        status, overdue = BatchStatus(batch.status), _is_overdue(batch, self._plane.clock.now())
        message = f"the storage cannot be used: {error}"
        said = [BatchError(code="storage_unavailable", message=message)]
        if gives_up(status, overdue=overdue):
            await self._fail(batch, said)
        elif batch.errors != (shown := _shown(said)):
            explain = partial(batches.explain, seen=batch, errors=shown)
            await self._plane.db.write(explain)

    def _ended(self, batch_id: str, task: asyncio.Task[bool]) -> None:
        del self._stepping[batch_id]
        if not task.cancelled() and task.result():
            self.on_progress()

    async def _change(self, batch: Batch, after: BatchStatus, **values: object) -> bool:
        return await self._plane.db.write(
            lambda session: batches.change(session, batch, after, **values)
        )

    async def _validate(self, batch: Batch) -> None:
        errors = await self.intake.take(batch)
        if errors is None:
            return
        if errors:
            await self._fail(batch, errors)
            return
        now = self._plane.clock.now()

        def unit(session: Session) -> None:
            models = batches.models(session, batch.id, 2)
            batches.change(
                session,
                batch,
                BatchStatus.IN_PROGRESS,
                in_progress_at=now,
                errors=None,
                total=batches.count(session, batch.id),
                model=models[0] if len(models) == 1 else None,
            )

        # failpoint batch.before_begin
        await self._plane.db.write(unit)
        # failpoint batch.begun

    async def _fail(self, batch: Batch, errors: Sequence[BatchError]) -> None:
        """End a batch that cannot begin, and first whatever lines of it have a row already."""
        now = self._plane.clock.now()
        while (await self._lines(batch)).queued:
            await self._end_lines(batch, now)
        await self._change(batch, BatchStatus.FAILED, failed_at=now, errors=_shown(errors))

    async def _lines(self, batch: Batch) -> batches.Lines:
        return await self._plane.db.read(lambda session: batches.lines(session, batch.id))

    async def _end_lines(self, batch: Batch, now: datetime) -> None:
        """End what is queued, a part in each transaction, and hang up on what runs."""
        running = await self._plane.db.write(
            lambda session: endings.end_lines(session, batch.id, InvocationState.CANCELED, now)
        )
        self._worker.interrupt(running, Interrupted.CANCELED)

    async def _close(self, batch: Batch, after: BatchStatus, **moments: datetime) -> None:
        """Write the files, then end the batch and name them in one transaction."""
        if batch.source is not None:
            await self._close_tables(batch, after, **moments)
            return
        written = await self._files.write(batch, after)

        def unit(session: Session) -> None:
            if _end(session, batch, after, written.unreadable, **written.ids, **moments):
                for file in filter(None, (written.output, written.errors)):
                    files.insert(session, file)
            # failpoint batch.before_close

        await self._plane.db.write(unit)
        # failpoint batch.closed

    async def _close_tables(self, batch: Batch, after: BatchStatus, **values: Any) -> None:
        """Write the tables, then end the batch; it fails when they cannot be written."""
        unreadable = 0
        try:
            unreadable = await self._tables.write(batch, after)
        except (TableError, ObjectRefused) as error:
            said = BatchError(code="output_not_written", message=str(error), param="output")
            after = BatchStatus.FAILED
            values = {"failed_at": self._plane.clock.now(), "errors": _shown([said])}
        end = partial(_end, batch=batch, after=after, unreadable=unreadable, **values)
        await self._plane.db.write(end)


def _end(
    session: Session, batch: Batch, after: BatchStatus, unreadable: int = 0, **values: Any
) -> bool:
    """End it, with what is known of its lines; False when somebody else did meanwhile."""
    tally = batches.tally(session, batch.id).without(unreadable)
    said = {"errors": None} | values
    return batches.change(session, batch, after, total=tally.ended, tally=asdict(tally), **said)


def _is_overdue(batch: Batch, now: datetime) -> bool:
    """Whether its completion window has passed."""
    return batch.expires_at is not None and batch.expires_at <= now


def _shown(errors: Sequence[BatchError]) -> list[dict[str, Any]]:
    return [error.model_dump() for error in errors]
