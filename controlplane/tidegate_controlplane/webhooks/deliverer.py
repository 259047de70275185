"""The outbox is emptied: each delivery is claimed, tried once, and its outcome written down.

At least once: what is claimed and never written down, because its process died, is due again when
its lease has not changed for `lease_s` of this process's monotonic clock. The receiver tells a
second try by `webhook-id`, which is the event's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from tidegate.protocol.webhooks import DeliveryState, TryView
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.deliveries import (
    Delivered,
    GivenUp,
    Later,
    Schedule,
    Tried,
    Verdict,
    judge,
    shares,
)
from tidegate_controlplane.settings import Settings, WebhookSettings
from tidegate_controlplane.store import deliveries, webhooks
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.deliveries import DeliveryLease
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery
from tidegate_controlplane.webhooks.receiver import LookUp, SystemNames
from tidegate_controlplane.webhooks.secret import SecretBox
from tidegate_controlplane.webhooks.sender import Sender
from tidegate_controlplane.work.loop import Loop

log = logging.getLogger(__name__)

KEPT_TRIES = 24
"""Of one delivery, the last ones: replays add to them."""
SWEEP_S = 60.0


class Deliverer:
    """`start` it, then `stop` it while the database is open."""

    def __init__(
        self,
        db: Database,
        sender: Sender,
        clock: Clock,
        settings: WebhookSettings,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` is a number in [0, 1)."""
        self._db = db
        self._sender = sender
        self._clock = clock
        self._settings = settings
        self._jitter = jitter
        self._owner = new_id("wrk")
        self._running: dict[asyncio.Task[None], WebhookDelivery] = {}
        self._seen: dict[DeliveryLease, float] = {}
        self._last = ""
        self._delivering = Loop("webhook deliverer", self.tick, settings.poll_s)
        self._sweeping = Loop("webhook sweeper", self.sweep, SWEEP_S)

    def start(self) -> None:
        self._delivering.start()
        self._sweeping.start()

    def wake(self) -> None:
        """Something is due: do not wait for the next look."""
        self._delivering.wake()

    async def stop(self, within_s: float) -> None:
        """Begin nothing more, let what is under way end within that time, hand back the rest."""
        await self._sweeping.stop()
        await self._delivering.stop()
        if self._running:
            await asyncio.wait(self._running, timeout=within_s)
        left = dict(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        leases = [DeliveryLease.of(row) for row in left.values()]
        await self._db.write(lambda session: deliveries.give_back(session, leases, counted=False))

    async def tick(self) -> None:
        """Take back what was lost, and begin what is due."""
        await self._take_back()
        await self._begin()

    async def sweep(self) -> None:
        """Forget what has been kept for long enough."""
        before = self._clock.now() - timedelta(seconds=self._settings.retention_s)
        while await self._db.write(lambda session: deliveries.sweep(session, before)):
            pass
        await self._db.write(webhooks.forget_deleted)

    async def _begin(self) -> None:
        now = self._clock.now()
        room = self._settings.concurrency - len(self._running)
        if room <= 0:
            return
        waiting = await self._db.read(lambda session: deliveries.waiting(session, now))
        running = Counter(row.webhook_id for row in self._running.values())
        wanted = shares(waiting, running, room, self._settings.concurrency_each, self._last)
        if not wanted:
            return
        self._last = list(wanted)[-1]
        claimed = await self._db.write(
            lambda session: deliveries.claim(session, self._owner, now, wanted)
        )
        for row, webhook in claimed:
            task = asyncio.create_task(self._deliver(row, webhook), name=f"deliver {row.id}")
            self._running[task] = row
            task.add_done_callback(self._ended)

    async def _take_back(self) -> None:
        """A lease that nobody here holds, and that has not changed for `lease_s`, is lost."""
        now = self._clock.monotonic()
        mine = {DeliveryLease.of(row) for row in self._running.values()}
        held = await self._db.read(deliveries.leased)
        self._seen = {lease: self._seen.get(lease, now) for lease in held if lease not in mine}
        lease_s = self._settings.lease_s
        lost = [lease for lease, since in self._seen.items() if now - since >= lease_s]
        if lost:
            await self._db.write(lambda session: deliveries.give_back(session, lost, counted=True))

    def _ended(self, task: asyncio.Task[None]) -> None:
        row = self._running.pop(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("delivery %s failed; its lease will run out", row.id, exc_info=error)
        self.wake()

    async def _deliver(self, row: WebhookDelivery, webhook: Webhook) -> None:
        tried, view = await self._sender.try_once(row, webhook)
        now = self._clock.now()
        await self._db.write(lambda session: self._record(session, row, tried, view, now))

    def _record(
        self, session: Session, row: WebhookDelivery, tried: Tried, view: TryView, now: datetime
    ) -> None:
        """The unit of work: the outcome, unless the lease was lost meanwhile."""
        webhook = session.get_one(Webhook, row.webhook_id)
        failing_s = (now - (webhook.failing_since or now)).total_seconds()
        verdict = judge(tried, row.number, failing_s, schedule_of(self._settings), self._jitter())
        tries = [*row.tries, view.model_dump(mode="json")][-KEPT_TRIES:]
        if not _write(session, DeliveryLease.of(row), verdict, now, tries):
            return
        if isinstance(verdict, Delivered):
            webhooks.note_success(session, webhook.id)
            return
        webhooks.note_failure(session, webhook.id, now)
        if isinstance(verdict, GivenUp) and verdict.disable:
            log.warning("webhook %s is disabled: %s", webhook.id, verdict.disable)
            webhooks.disable(session, webhook.id, verdict.disable, now)


@asynccontextmanager
async def delivering(
    db: Database, box: SecretBox, clock: Clock, settings: Settings, look_up: LookUp | None = None
) -> AsyncIterator[Deliverer]:
    """Deliver while the block runs; names are resolved as the machine does, unless told how."""
    names = SystemNames()
    sender = Sender(box, clock, settings, look_up or names.look_up)
    deliverer = Deliverer(db, sender, clock, settings.webhooks)
    deliverer.start()
    try:
        yield deliverer
    finally:
        await deliverer.stop(min(settings.webhooks.timeout_s, settings.shutdown_s))
        await sender.close()
        names.close()


def schedule_of(settings: WebhookSettings) -> Schedule:
    return Schedule(
        tries=settings.tries,
        base_s=settings.retry_base_s,
        factor=settings.retry_factor,
        retry_after_max_s=settings.retry_after_max_s,
        give_up_after_s=settings.give_up_after_s,
    )


def _write(
    session: Session,
    lease: DeliveryLease,
    verdict: Verdict,
    now: datetime,
    tries: list[dict[str, Any]],
) -> bool:
    match verdict:
        case Delivered():
            return deliveries.end(session, lease, DeliveryState.DELIVERED, now, tries)
        case GivenUp():
            return deliveries.end(session, lease, DeliveryState.DEAD, now, tries)
        case Later(after_s=after_s):
            return deliveries.again(session, lease, now + timedelta(seconds=after_s), tries)
