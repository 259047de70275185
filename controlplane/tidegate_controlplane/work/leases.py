"""Keeping leases alive, and taking back those whose owner is not heard of any more.

A lease is lost when its beat has not changed for `lease_s` of this process's own time, as
`domain.sighting` judges it (DESIGN §8, P13).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session

from tidegate_controlplane.domain.attempts import with_attempt
from tidegate_controlplane.domain.sighting import Sighting, is_lost, observe
from tidegate_controlplane.store import leases
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.leases import Held, Lease
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.outcome import (
    WORKER_LOST,
    Again,
    End,
    Interrupted,
    after_lost_lease,
)
from tidegate_controlplane.work.worker import Plane, Worker

log = logging.getLogger(__name__)


Beats = Mapping[Lease, Sighting[int]]


def observe_beats(seen: Beats, held: Iterable[Held], now_s: float) -> Beats:
    """What is known of each lease that exists now."""
    return {one.lease: observe(seen.get(one.lease), one.beat, now_s) for one in held}


class LeaseKeeper:
    """Beats for what runs here, and requeues what nobody beats for."""

    def __init__(self, plane: Plane, worker: Worker, notices: Notices, owner: str) -> None:
        self._plane = plane
        self._worker = worker
        self._notices = notices
        self._owner = owner
        self._seen: Beats = {}

    async def recover(self) -> None:
        """Requeue at once what other owners hold; for the start of a process.

        One process owns a database file at a time, by a lock, so the former owner is dead. Its
        death was not the request's fault and counts as no attempt. Other control planes may live
        on a shared database: there a lease is taken back when its beat stops, as by `tick`.
        """
        if self._plane.db.shared:
            return
        now = self._plane.clock.now()

        def unit(session: Session) -> int:
            others = [held for held in leases.leased(session) if held.owner != self._owner]
            for held in others:
                leases.requeue(session, held.lease, now, available_at=now, counted=False)
                # failpoint recover.before_commit
            return len(others)

        if number := await self._plane.db.write(unit):
            # failpoint recover.committed
            log.info("requeued %d requests that a former process had begun", number)

    async def release(self) -> None:
        """Requeue what this process still holds; for its end, when nothing runs any more."""
        now = self._plane.clock.now()

        def unit(session: Session) -> None:
            for held in leases.leased(session, self._owner):
                leases.requeue(session, held.lease, now, available_at=now, counted=False)

        await self._plane.db.write(unit)

    async def tick(self) -> None:
        """Beat first: while no beat can be written, nobody is judged for lacking one."""
        await self._beat()
        await self._reap()

    async def _beat(self) -> None:
        mine = [run.lease for run in self._worker.runs]
        if not mine:
            return
        held = await self._plane.db.write(
            Guarded(lambda session: leases.beat(session, self._owner, mine))
        )
        # failpoint beat.committed
        canceled = {one.lease for one in held if one.cancel_requested}
        lost = set(mine) - {one.lease for one in held}
        for run in self._worker.runs:
            if run.lease in canceled:
                run.interrupt(Interrupted.CANCELED)
            elif run.lease in lost:
                run.interrupt(Interrupted.LOST)  # its result could change nothing any more

    async def _reap(self) -> None:
        now = self._plane.clock.monotonic()
        held = await self._plane.db.read(leases.leased)
        self._seen = observe_beats(self._seen, held, now)
        lease_s = self._plane.settings.work.lease_s
        lost = [one for one in held if is_lost(self._seen[one.lease], now, lease_s)]
        if lost:
            # failpoint reap.found
            wall = self._plane.clock.now()
            finished = await self._plane.db.write(lambda session: take_back(session, lost, wall))
            # failpoint reap.committed
            self._notices.changed(finished)


def take_back(session: Session, lost: Iterable[Held], now: datetime) -> list[str]:
    """Requeue, or end, each of these; returns the ids of those that are finished now."""
    finished: list[str] = []
    for held in lost:
        outcome = after_lost_lease(
            held.attempt, held.max_attempts, cancel_requested=held.cancel_requested
        )
        match outcome:
            case End(state=state, failure=failure):
                error = failure.model_dump() if failure else None
                attempts = _attempts(held, now)
                if leases.end(session, held.lease, state, now, error, attempts):
                    finished.append(held.lease.invocation_id)
            case Again(counted=counted):
                leases.requeue(
                    session,
                    held.lease,
                    now,
                    available_at=now,
                    counted=counted,
                    attempts=_attempts(held, now),
                )
            case _:
                raise AssertionError(f"a lost lease cannot become {outcome}")
    return finished


def _attempts(held: Held, now: datetime) -> list[dict[str, Any]] | None:
    if held.attempts is None:
        return None
    return with_attempt(
        held.attempts,
        attempt=held.attempt,
        began_at=held.claimed_at,
        ended_at=now,
        replica_id=None,
        error=WORKER_LOST.model_dump(),
    )
