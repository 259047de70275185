"""Running one leased request: fetch its body, ask a replica, publish what came back.

Work runs at least once, and its result is published exactly once: the publishing update names the
lease, and a lease that was lost publishes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.attempts import with_attempt
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.errors import OutcomeUnknown, Unavailable
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.objects.base import ObjectStore, ObjectStoreError
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import leases
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.leases import Result
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.asking import OUTAGES, Asking, Forwards
from tidegate_controlplane.work.fetching import Fetching
from tidegate_controlplane.work.inputs import Inputs
from tidegate_controlplane.work.loop import PAUSE_AFTER_ERROR_S
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.object_keys import result_key
from tidegate_controlplane.work.outcome import (
    Again,
    End,
    Interrupted,
    Outage,
    Outcome,
    Reply,
    Success,
    Try,
    Written,
    decide,
    storage_failure,
)
from tidegate_controlplane.work.partial import Partial
from tidegate_controlplane.work.payloads import Payload, Payloads
from tidegate_controlplane.work.run import Run

log = logging.getLogger(__name__)


class RecordsUse(Protocol):
    """Counts what was used; `gateway.usage.UsageBook` does."""

    def record(
        self,
        project_id: str,
        served: Served,
        key_id: str | None,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None: ...


@dataclass(frozen=True)
class Plane:
    """What durable work stands on."""

    db: Database
    objects: ObjectStore
    endpoints: Endpoints
    forwarder: Forwards
    usage: RecordsUse
    clock: Clock
    settings: Settings
    jitter: Callable[[], float] = random.random
    """A number in [0, 1)."""
    envelopes: Envelopes = field(default_factory=Envelopes)
    """What seals bodies in rows; `objects` seals its own."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """Where what is counted is told."""

    @cached_property
    def inputs(self) -> Inputs:
        limits = self.settings.limits
        return Inputs(limits.s3_buckets, limits.invocation_body_bytes)

    @cached_property
    def payloads(self) -> Payloads:
        return Payloads(self.objects, self.envelopes, self.settings.limits.inline_body_bytes)


class Worker:
    """Everything that this process runs now, each request in a task of its own."""

    def __init__(self, plane: Plane, notices: Notices) -> None:
        self._plane = plane
        self._notices = notices
        self._payloads = plane.payloads
        self._asking = Asking(
            plane.payloads,
            plane.endpoints,
            plane.forwarder,
            plane.clock,
            Fetching(plane.db, plane.payloads, plane.inputs, plane.settings.limits),
            plane.settings.limits.invocation_result_bytes,
        )
        self._runs: dict[asyncio.Task[None], Run] = {}
        self.on_room: Callable[[], None] = lambda: None
        """Called when a run ends, and a replica has room for another."""

    def start(self, row: Invocation, served: Served) -> None:
        """Run what was just claimed."""
        run = Run(row, served, self._partial(row))
        task = asyncio.create_task(self._run(run), name=f"run {row.id}")
        self._runs[task] = run
        task.add_done_callback(self._ended)

    @property
    def runs(self) -> Collection[Run]:
        return list(self._runs.values())

    def unseen(self, deployment_id: str) -> int:
        """Runs that take room though no replica counts them: not asked yet, or not kept yet."""
        here = [run for run in self.runs if run.served.deployment_id == deployment_id]
        return sum(not run.asked or run.waits_for_storage for run in here)

    def interrupt(self, ids: Collection[str], why: Interrupted) -> None:
        """End these runs early, as far as they are here."""
        for run in self.runs:
            if run.row.id in ids:
                run.interrupt(why)

    async def drain(self, within_s: float) -> None:
        """Let what runs come to its end; what does not is handed back to the queue."""
        if self._runs:
            await asyncio.wait(self._runs, timeout=within_s)
        for run in self.runs:
            run.interrupt(Interrupted.SHUTDOWN)
        if self._runs:
            await asyncio.wait(self._runs)

    def _partial(self, row: Invocation) -> Partial | None:
        if row.batch_id is not None:
            return None
        return Partial(row.attempt, lambda: self._notices.heard(row.id))

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("run of %s failed; its lease will run out", run.row.id, exc_info=error)
        self.on_room()

    async def _run(self, run: Run) -> None:
        row, settings = run.row, self._plane.settings.work
        with self._notices.following(row.id, run.partial):
            reply = await self._reply(run)
            tried = Try(row.attempt, row.max_attempts, row.timeout_s, self._plane.jitter())
            # failpoint run.answered
            try:
                await self._insist(run, decide(reply, tried, settings))
            except ObjectStoreError as error:
                log.warning("the result of %s could not be kept: %s", row.id, error)
                outage = Outage(storage_failure("the result could not be stored", error))
                await self._insist(run, decide(run.interrupted or outage, tried, settings))

    async def _insist(self, run: Run, outcome: Outcome) -> None:
        """Publish as soon as database and objects can be written; until then the answer waits here.

        Whether a commit of unknown outcome was made is not guessed: the lease will tell.
        """
        while True:
            try:
                return await self._publish(run, outcome)
            except OutcomeUnknown:
                raise
            except (Unavailable, *OUTAGES) as error:
                if run.interrupted:
                    raise
                run.waits_for_storage = True
                log.warning("what became of %s could not be written: %s", run.row.id, error)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    async def _reply(self, run: Run) -> Reply:
        run.call = asyncio.create_task(self._asking.answer(run))
        if run.interrupted:
            run.call.cancel()
        try:
            return await run.call
        except asyncio.CancelledError:
            if run.interrupted is None:
                raise
            return run.interrupted

    async def _publish(self, run: Run, outcome: Outcome) -> None:
        lease, now = run.lease, self._plane.clock.now()
        match outcome:
            case Success():
                await self._succeed(run, outcome)
            case End(state=state, failure=failure):
                error = failure.model_dump() if failure else None
                end = partial(
                    leases.end,
                    lease=lease,
                    after=state,
                    now=now,
                    error=error,
                    attempts=_attempts(run, now, error),
                )
                await self._plane.db.write(Guarded(end))
            case Again(after_s=after_s, counted=counted, failure=failure):
                error = failure.model_dump() if failure else None
                requeue = partial(
                    leases.requeue,
                    lease=lease,
                    now=now,
                    available_at=now + timedelta(seconds=after_s),
                    counted=counted,
                    error=error,
                    attempts=_attempts(run, now, error) if counted else None,
                )
                # failpoint run.before_requeue
                await self._plane.db.write(Guarded(requeue))
        # failpoint run.ended
        self._notices.changed([run.row.id])

    async def _succeed(self, run: Run, success: Success) -> None:
        plane, lease, now = self._plane, run.lease, self._plane.clock.now()
        kept, size_bytes = await self._kept(run, success.answer)
        # failpoint publish.result_kept
        result = Result(
            kept.inline,
            kept.key,
            success.prompt_tokens,
            success.completion_tokens,
            size_bytes,
            success.cached_tokens,
            run.replica_s,
        )
        publish = partial(
            leases.succeed,
            lease=lease,
            now=now,
            result=result,
            attempts=_attempts(run, now, None),
        )
        if await plane.db.write(Guarded(publish)):
            # failpoint publish.committed
            plane.usage.record(
                run.row.project_id,
                run.served,
                run.row.key_id,
                success.prompt_tokens,
                success.completion_tokens,
            )
        else:
            await self._payloads.discard(kept)

    async def _kept(self, run: Run, answer: bytes | Written) -> tuple[Payload, int]:
        """Where the answer is, and its bytes."""
        if isinstance(answer, Written):
            return Payload(answer.key, None), answer.bytes
        key = result_key(run.row.project_id, run.row.id, run.row.lease_epoch)
        return await self._payloads.keep(key, answer), len(answer)


def _attempts(run: Run, now: datetime, error: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """The row's attempts with this one; none of a line, whose batch's files tell of it."""
    if run.partial is None:
        return None
    return with_attempt(
        run.row.attempts,
        attempt=run.row.attempt,
        began_at=run.row.claimed_at,
        ended_at=now,
        replica_id=run.partial.replica_id,
        error=error,
    )
