"""Batches: a file of requests, under OpenAI's shapes. `batch_runner` carries them out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlmodel import Session

from tidegate.protocol.work import BatchList, BatchObject, BatchRequest, BatchStatus
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import BadRequest, NotFound
from tidegate_controlplane.store import batches, files
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.work.pages import check_cursor
from tidegate_controlplane.work.views import batch_object

WINDOW = {"24h": timedelta(hours=24)}
"""Seconds that each `completion_window` leaves."""


class Batches:
    """The service behind `/v1/batches`."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.on_changed: Callable[[], None] = lambda: None
        """Called after each commit that gives the runner something to do."""

    async def create(self, principal: Principal, wanted: BatchRequest) -> BatchObject:
        """Accept a batch; its file is read afterwards. BadRequest when the file cannot be used."""
        now = self._clock.now()
        batch = Batch(
            id=new_id("batch"),
            project_id=principal.project_id,
            status=BatchStatus.VALIDATING.value,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            completion_window=wanted.completion_window,
            labels=wanted.metadata,
            key_id=principal.key_id,
            created_at=now,
            expires_at=now + WINDOW[wanted.completion_window],
        )

        def unit(session: Session) -> BatchObject:
            file = files.get(session, principal.project_id, wanted.input_file_id)
            if file is None:
                raise _unusable(f"there is no file {wanted.input_file_id!r} in this project")
            if file.purpose != "batch":
                raise _unusable(f"{file.id} has the purpose '{file.purpose}', not 'batch'")
            batches.insert(session, batch)
            session.flush()
            return _seen(session, batch)

        accepted = await self._db.write(unit)
        # failpoint batch.accepted
        self.on_changed()
        return accepted

    async def get(self, principal: Principal, batch_id: str) -> BatchObject:
        def unit(session: Session) -> BatchObject:
            return _seen(session, _find(session, principal, batch_id))

        return await self._db.read(unit)

    async def list(self, principal: Principal, *, after: str | None, limit: int) -> BatchList:
        """Newest first."""
        check_cursor(after, "batch")

        def unit(session: Session) -> BatchList:
            rows = batches.page(session, principal.project_id, after=after, limit=limit + 1)
            counts = batches.counts(session, [row.id for row in rows[:limit]])
            data = [batch_object(row, counts[row.id]) for row in rows[:limit]]
            return BatchList(
                data=data,
                first_id=data[0].id if data else None,
                last_id=data[-1].id if data else None,
                has_more=len(rows) > limit,
            )

        return await self._db.read(unit)

    async def cancel(self, principal: Principal, batch_id: str) -> BatchObject:
        """Begin to cancel what is not finished; what is finished stays as it is."""
        now = self._clock.now()

        def unit(session: Session) -> BatchObject:
            batch = _find(session, principal, batch_id)
            status = BatchStatus(batch.status)
            if not status.is_final and status is not BatchStatus.CANCELLING:
                batches.change(session, batch, BatchStatus.CANCELLING, cancelling_at=now)
                session.refresh(batch)
            return _seen(session, batch)

        canceled = await self._db.write(unit)
        self.on_changed()
        return canceled


def _find(session: Session, principal: Principal, batch_id: str) -> Batch:
    batch = batches.get(session, principal.project_id, batch_id)
    if batch is None:
        raise NotFound(f"there is no batch {batch_id[:64]!r} in this project")
    return batch


def _seen(session: Session, batch: Batch) -> BatchObject:
    return batch_object(batch, batches.counts(session, [batch.id])[batch.id])


def _unusable(why: str) -> BadRequest:
    return BadRequest(f"Invalid value for 'input_file_id': {why}.", param="input_file_id")
