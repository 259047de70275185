"""Batches: a file of requests, under OpenAI's shapes. `batch_runner` carries them out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlmodel import Session

from tidegate.protocol.batch import window_hours
from tidegate.protocol.resources import PlannedOffer
from tidegate.protocol.work import BatchList, BatchObject, BatchRequest, BatchStatus
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.batch_progress import Span, Tally, progress
from tidegate_controlplane.domain.on_offer import share_usd_per_hour
from tidegate_controlplane.errors import BadRequest, Conflict, NotFound
from tidegate_controlplane.gateway.catalog import ADAPTER_MARK
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.store import batches, deployments, files
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.webhooks.service import check_named
from tidegate_controlplane.work.pages import check_cursor
from tidegate_controlplane.work.table_terms import check_tables
from tidegate_controlplane.work.views import batch_object


class Batches:
    """The service behind `/v1/batches`."""

    def __init__(self, db: Database, clock: Clock, limits: LimitSettings) -> None:
        self._db = db
        self._clock = clock
        self._limits = limits
        self.on_changed: Callable[[], None] = lambda: None
        """Called after each commit that gives the runner something to do."""

    async def create(self, principal: Principal, wanted: BatchRequest) -> BatchObject:
        """Accept a batch; its input is read afterwards. BadRequest when that cannot be used."""
        now = self._clock.now()
        if wanted.input is not None and wanted.output is not None:
            check_tables(wanted.input, wanted.output, wanted.endpoint, self._limits.s3_buckets)
        batch = _new(principal, wanted, now)

        def unit(session: Session) -> BatchObject:
            _check_input(session, batch, now)
            check_named(session, principal.project_id, wanted.webhook)
            batches.insert(session, batch)
            session.flush()
            return _seen(session, batch, now)

        accepted = await self._db.write(unit)
        # failpoint batch.accepted
        self.on_changed()
        return accepted

    async def retry(self, principal: Principal, batch_id: str) -> BatchObject:
        """A new batch of the lines that the old one did not answer; the old one stays as it is.

        Raises Conflict when there are none, or when they are being run again already.
        """
        now = self._clock.now()

        def unit(session: Session) -> BatchObject:
            former = _find(session, principal, batch_id)
            _check_retry(session, former)
            batch = _again(principal, former, now)
            _check_input(session, batch, now)
            batches.insert(session, batch)
            session.flush()
            return _seen(session, batch, now)

        accepted = await self._db.write(unit)
        self.on_changed()
        return accepted

    async def get(self, principal: Principal, batch_id: str) -> BatchObject:
        """Raises NotFound."""
        now = self._clock.now()

        def unit(session: Session) -> BatchObject:
            return _seen(session, _find(session, principal, batch_id), now)

        return await self._db.read(unit)

    async def list(self, principal: Principal, *, after: str | None, limit: int) -> BatchList:
        """Newest first."""
        check_cursor(after, "batch")

        def unit(session: Session) -> BatchList:
            rows = batches.page(session, principal.project_id, after=after, limit=limit + 1)
            data = [batch_object(row, _tally(session, row)) for row in rows[:limit]]
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
            return _seen(session, batch, now)

        canceled = await self._db.write(unit)
        self.on_changed()
        return canceled


def _find(session: Session, principal: Principal, batch_id: str) -> Batch:
    batch = batches.get(session, principal.project_id, batch_id)
    if batch is None:
        raise NotFound(f"there is no batch {batch_id[:64]!r} in this project")
    return batch


def _new(principal: Principal, wanted: BatchRequest, now: datetime) -> Batch:
    expiry = wanted.output_expires_after
    return Batch(
        id=new_id("batch"),
        project_id=principal.project_id,
        status=BatchStatus.VALIDATING.value,
        endpoint=wanted.endpoint,
        input_file_id=wanted.input_file_id,
        completion_window=wanted.completion_window,
        labels=wanted.metadata,
        key_id=principal.key_id,
        output_expires_after_s=expiry.seconds if expiry else None,
        source=wanted.input.model_dump(mode="json") if wanted.input else None,
        target=wanted.output.model_dump(mode="json") if wanted.output else None,
        webhook_id=wanted.webhook,
        created_at=now,
        expires_at=now + timedelta(hours=window_hours(wanted.completion_window)),
    )


def _again(principal: Principal, former: Batch, now: datetime) -> Batch:
    return Batch(
        id=new_id("batch"),
        project_id=former.project_id,
        status=BatchStatus.VALIDATING.value,
        endpoint=former.endpoint,
        input_file_id=former.input_file_id,
        completion_window=former.completion_window,
        labels=former.labels,
        key_id=principal.key_id,
        output_expires_after_s=former.output_expires_after_s,
        source=former.source,
        target=former.target,
        parts=former.parts,
        retry_of=former.id,
        webhook_id=former.webhook_id,
        created_at=now,
        expires_at=now + timedelta(hours=window_hours(former.completion_window)),
    )


def _check_retry(session: Session, former: Batch) -> None:
    if not BatchStatus(former.status).is_final:
        raise Conflict(
            f"{former.id} is {former.status}; its lines can be run again once it has ended, or "
            "after it is cancelled",
            code="not_finished",
        )
    if following := batches.retry_of(session, former.id):
        raise Conflict(
            f"{following} already runs the lines again that {former.id} did not answer; "
            "retry that one",
            code="already_retried",
        )
    unwritten = former.source is not None and former.status == BatchStatus.FAILED
    something = unwritten or bool(batches.unanswered(session, former.id, limit=1))
    if former.in_progress_at is None or not something:
        raise Conflict(
            f"{former.id} ended as {former.status} and has no line to run again",
            code="nothing_to_retry",
        )


def _check_input(session: Session, batch: Batch, now: datetime) -> None:
    if batch.source is not None:
        return
    file_id = batch.input_file_id or ""
    file = files.get(session, batch.project_id, file_id, now)
    if file is None:
        raise _unusable(f"there is no file {file_id!r} in this project, or no longer")
    if file.purpose != "batch":
        raise _unusable(f"{file.id} has the purpose '{file.purpose}', not 'batch'")


def _seen(session: Session, batch: Batch, now: datetime) -> BatchObject:
    tally = _tally(session, batch)
    if batch.in_progress_at is None or batch.expires_at is None:
        return batch_object(batch, tally)
    span = Span(batch.in_progress_at, _ended_at(batch), batch.expires_at)
    since = now - timedelta(seconds=span.rate_window_s(now))
    recent = tally if span.ended else batches.tally(session, batch.id, since)
    usd_per_hour = _replica_usd_per_hour(session, batch)
    standing = progress(tally, recent, batch.total, span, now, usd_per_hour)
    return batch_object(batch, tally, standing)


def _replica_usd_per_hour(session: Session, batch: Batch) -> float | None:
    """By the present plan of its deployment; None without one, and where nothing is rented."""
    row = batch.model and deployments.living(
        session, batch.project_id, batch.model.partition(ADAPTER_MARK)[0]
    )
    offer = row.plan.get("offer") if row else None
    return share_usd_per_hour(PlannedOffer.model_validate(offer)) if offer else None


def _tally(session: Session, batch: Batch) -> Tally:
    """As it was when the batch ended; counted anew before that."""
    return Tally(**batch.tally) if batch.tally else batches.tally(session, batch.id)


def _ended_at(batch: Batch) -> datetime | None:
    return batch.completed_at or batch.expired_at or batch.cancelled_at or batch.failed_at


def _unusable(why: str) -> BadRequest:
    return BadRequest(f"Invalid value for 'input_file_id': {why}.", param="input_file_id")
