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
from datetime import timedelta
from functools import partial
from typing import Protocol

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import DeadlinePassed, OutcomeUnknown, Refused, Unavailable
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.objects.base import ObjectNotFound, ObjectStore, ObjectStoreError
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import invocations
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.invocations import Lease, Result
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.loop import PAUSE_AFTER_ERROR_S
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.object_keys import result_key
from tidegate_controlplane.work.outcome import (
    REQUEST_LOST,
    Again,
    Answered,
    End,
    Interrupted,
    Outcome,
    Reply,
    Success,
    Try,
    decide,
)
from tidegate_controlplane.work.payloads import Payload, Payloads

log = logging.getLogger(__name__)


class Forwards(Protocol):
    """Gives a request to a replica; `gateway.forward.Forwarder` does."""

    async def call(
        self,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        run_s: float | None = None,
        priority: Priority = Priority.SYNC,
    ) -> Answered: ...


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

    @property
    def payloads(self) -> Payloads:
        return Payloads(self.objects, self.settings.limits.inline_body_bytes)


@dataclass(eq=False)
class Run:
    """A leased request on its way through a replica."""

    row: Invocation
    served: Served
    asked: bool = False
    """A replica has it, and counts it as in flight."""
    interrupted: Interrupted | None = None
    call: asyncio.Task[Answered] | None = field(default=None, repr=False)

    @property
    def lease(self) -> Lease:
        return Lease.of(self.row)

    def interrupt(self, why: Interrupted) -> None:
        """Hang up on the replica, which stops its work for this request."""
        self.interrupted = why
        if self.call is not None:
            self.call.cancel()


class Worker:
    """Everything that this process runs now, each request in a task of its own."""

    def __init__(self, plane: Plane, notices: Notices) -> None:
        self._plane = plane
        self._notices = notices
        self._payloads = plane.payloads
        self._runs: dict[asyncio.Task[None], Run] = {}
        self.on_room: Callable[[], None] = lambda: None
        """Called when a run ends, and a replica has room for another."""

    def start(self, row: Invocation, served: Served) -> None:
        """Run what was just claimed."""
        run = Run(row, served)
        task = asyncio.create_task(self._run(run), name=f"run {row.id}")
        self._runs[task] = run
        task.add_done_callback(self._ended)

    @property
    def runs(self) -> Collection[Run]:
        return list(self._runs.values())

    def not_yet_asked(self, deployment_id: str) -> int:
        """Runs that no replica counts as in flight yet."""
        return sum(run.served.deployment_id == deployment_id and not run.asked for run in self.runs)

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

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("run of %s failed; its lease will run out", run.row.id, exc_info=error)
        self.on_room()

    async def _run(self, run: Run) -> None:
        row, settings = run.row, self._plane.settings.work
        reply = await self._ask(run)
        tried = Try(row.attempt, row.max_attempts, row.timeout_s, self._plane.jitter())
        # failpoint run.answered
        try:
            await self._insist(run, decide(reply, tried, settings))
        except ObjectStoreError as error:
            log.warning("the result of %s could not be kept: %s", row.id, error)
            await self._insist(run, decide(Interrupted.NO_STORAGE, tried, settings))

    async def _insist(self, run: Run, outcome: Outcome) -> None:
        """Publish as soon as the database can be written again; until then the answer waits here.

        Whether a commit of unknown outcome was made is not guessed: the lease will tell.
        """
        while True:
            try:
                return await self._publish(run, outcome)
            except OutcomeUnknown:
                raise
            except Unavailable as error:
                if run.interrupted:
                    raise
                log.warning("what became of %s could not be written: %s", run.row.id, error)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)

    async def _ask(self, run: Run) -> Reply:
        try:
            body = await self._payloads.read(Payload(run.row.request, run.row.request_key))
        except ObjectNotFound:
            return REQUEST_LOST
        except ObjectStoreError as error:
            log.warning("the body of %s could not be read: %s", run.row.id, error)
            return Interrupted.NO_STORAGE
        run.call = asyncio.create_task(self._call(run, body))
        if run.interrupted:
            run.call.cancel()
        try:
            return await run.call
        except asyncio.CancelledError:
            if run.interrupted is None:
                raise
            return run.interrupted
        except TimeoutError:
            return Interrupted.TIMEOUT
        except _NoReplica:
            return Interrupted.NO_REPLICA
        except Refused as refused:
            return refused

    async def _call(self, run: Run, body: bytes) -> Answered:
        row, served = run.row, run.served
        priority = Priority.ASYNC if row.batch_id is None else Priority.BATCH
        if not self._plane.endpoints.has_room(served.deployment_id, priority):
            raise _NoReplica
        # failpoint run.before_asking
        run.asked = True  # nothing is awaited until the replica that has room has it
        try:
            async with asyncio.timeout(row.timeout_s):
                return await self._plane.forwarder.call(
                    served,
                    row.endpoint,
                    body,
                    deadline=self._plane.clock.monotonic(),  # a lease does not wait for a slot
                    run_s=2 * row.timeout_s,  # the limit that counts is the one above
                    request_id=f"{row.id}-{row.lease_epoch}",
                    priority=priority,
                )
        except DeadlinePassed:
            raise _NoReplica from None

    async def _publish(self, run: Run, outcome: Outcome) -> None:
        lease, now = run.lease, self._plane.clock.now()
        match outcome:
            case Success():
                await self._succeed(run, outcome)
            case End(state=state, failure=failure):
                error = failure.model_dump() if failure else None
                await self._plane.db.write(
                    Guarded(lambda session: invocations.end(session, lease, state, now, error))
                )
            case Again(after_s=after_s, counted=counted, failure=failure):
                error = failure.model_dump() if failure else None
                # failpoint run.before_requeue
                await self._plane.db.write(
                    lambda session: invocations.requeue(
                        session,
                        lease,
                        now,
                        available_at=now + timedelta(seconds=after_s),
                        counted=counted,
                        error=error,
                    )
                )
        # failpoint run.ended
        self._notices.finished([run.row.id])

    async def _succeed(self, run: Run, success: Success) -> None:
        plane, lease = self._plane, run.lease
        key = result_key(run.row.project_id, lease.invocation_id, lease.epoch)
        kept = await self._payloads.keep(key, success.body)
        # failpoint publish.result_kept
        result = Result(kept.inline, kept.key, success.prompt_tokens, success.completion_tokens)
        publish = partial(invocations.succeed, lease=lease, now=plane.clock.now(), result=result)
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


class _NoReplica(Exception):
    """The replica that had room when the request was claimed is gone, or full."""
