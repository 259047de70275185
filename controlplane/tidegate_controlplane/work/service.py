"""Durable work as one part of the process: three services, and the loops behind them."""

from __future__ import annotations

from collections.abc import Callable

from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.work.batch_runner import BatchRunner
from tidegate_controlplane.work.batches import Batches
from tidegate_controlplane.work.dispatch import Dispatcher
from tidegate_controlplane.work.files import Files
from tidegate_controlplane.work.invocations import Invocations
from tidegate_controlplane.work.leases import LeaseKeeper
from tidegate_controlplane.work.lines import GROUP_LINES
from tidegate_controlplane.work.loop import Loop
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.redriving import Redriving
from tidegate_controlplane.work.retention import Retention
from tidegate_controlplane.work.rotation import Rotation
from tidegate_controlplane.work.spool import Spool
from tidegate_controlplane.work.submission import Submissions
from tidegate_controlplane.work.worker import Plane, Worker


class Work:
    """Construct it once the catalog is loaded; `start`, serve, `stop`."""

    def __init__(self, plane: Plane, catalog: Catalog, group_lines: int = GROUP_LINES) -> None:
        """`group_lines` of a batch's file become rows in one transaction."""
        settings, owner, notices = plane.settings, new_id("wrk"), Notices()
        worker = Worker(plane, notices)
        self._plane = plane
        self._worker = worker
        self._leases = LeaseKeeper(plane, worker, notices, owner)
        self._runner = BatchRunner(plane, catalog, worker, group_lines)
        dispatcher = Dispatcher(plane, catalog, worker, notices, owner)
        poll_s = settings.work.poll_s
        self._dispatching = Loop("work dispatcher", dispatcher.tick, poll_s)
        self._batching = Loop("batch runner", self._step_batches, poll_s)
        self._keeping = Loop("lease keeper", self._leases.tick, settings.work.heartbeat_s)
        self._retaining = Loop("retention", Retention(plane).tick, settings.retention.every_s)

        self.notices = notices
        self.leads: Callable[[], bool] = lambda: True
        """Whether this control plane is the one that carries out batches; lines run everywhere."""
        self.files = Files(plane.db, plane.objects, plane.clock, settings.retention.orphan_grace_s)
        self.rotation = Rotation(plane)
        self.batches = Batches(plane.db, plane.clock, settings.limits)
        self.invocations = Invocations(
            plane.db,
            plane.payloads,
            plane.clock,
            settings,
            worker,
            notices,
            Submissions(plane.db, plane.payloads, plane.inputs, catalog, plane.clock, settings),
            Redriving(plane.db, catalog, plane.clock, settings.limits.result_retention_s),
        )
        self.invocations.on_queued = self._queued
        self.batches.on_changed = self._batching.wake
        self._runner.intake.on_queued = self._queued
        self._runner.on_progress = self._batching.wake
        worker.on_room = self._dispatching.wake
        self.on_queued: Callable[[], None] = lambda: None
        """Called after each commit here that queued something."""

    async def start(self) -> None:
        """Take over what a former process left, and begin to work."""
        Spool(self._plane.settings.spool_dir).clear()
        await self._leases.recover()
        for loop in (self._dispatching, self._batching, self._keeping, self._retaining):
            loop.start()

    async def stop(self) -> None:
        """Claim nothing more, let what runs end within `shutdown_s`, hand back the rest.

        The database must stay open until this returns.
        """
        self.notices.close()
        await self._retaining.stop()
        await self.rotation.stop()
        await self._batching.stop()
        await self._runner.stop()
        await self._dispatching.stop()
        await self._worker.drain(self._plane.settings.shutdown_s)
        await self._keeping.stop()
        await self._leases.release()

    async def _step_batches(self) -> None:
        if self.leads():
            await self._runner.tick()

    def _queued(self) -> None:
        """There is something to claim, and perhaps no replica yet to run it."""
        self.look()
        self.on_queued()

    def look(self) -> None:
        """Look at the queue now: it may be another control plane that put something into it."""
        self._dispatching.wake()
        self._plane.endpoints.wanted.set()

    async def __aenter__(self) -> Work:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
