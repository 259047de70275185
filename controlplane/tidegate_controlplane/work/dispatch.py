"""Giving queued work to replicas that have room for it.

A request is claimed only when a replica is ready, so a cold start burns no lease; until then it is
the backlog that the autoscaler sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from sqlmodel import Session

from tidegate.protocol.resources import DeploymentPhase
from tidegate.spec import Mode
from tidegate_controlplane.domain.shares import Turns
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.store import claims, endings
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.tables import Deployment
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.outcome import deployment_deleted
from tidegate_controlplane.work.worker import Plane, Worker

SYNC_SHARE = 1 / 8
"""Of a deployment's capacity, kept free of batch lines for requests that somebody waits for."""
_GOING = frozenset({DeploymentPhase.DELETING, DeploymentPhase.DELETED})


@dataclass(frozen=True)
class Room:
    """How many requests a deployment can take now."""

    alone: int
    """Invocations."""
    lines: int
    """Requests in all, when batch lines are among them: at most `alone`."""


def room(capacity: int, busy: int, mode: Mode) -> Room:
    """What is left of `capacity` when `busy` requests run, wait or are about to be sent.

    Where synchronous requests are served too, batch lines leave a share of the capacity alone (but
    may always use one place), so that such a request need not wait for a line to end.
    """
    alone = max(0, capacity - busy)
    reserved = 0
    if mode in (Mode.REALTIME, Mode.SERVERLESS):
        reserved = min(capacity - 1, math.ceil(capacity * SYNC_SHARE))
    return Room(alone, max(0, alone - max(0, reserved)))


class Dispatcher:
    """Claims what is due, deployment by deployment, and ends what can never run."""

    def __init__(
        self, plane: Plane, catalog: Catalog, worker: Worker, notices: Notices, owner: str
    ) -> None:
        self._plane = plane
        self._catalog = catalog
        self._worker = worker
        self._notices = notices
        self._owner = owner
        self._turns: dict[str, Turns] = {}
        """Of each deployment: whom the next claim begins after."""

    async def tick(self) -> None:
        """Look once at every deployment that has unfinished work."""
        await self._promote()
        await self._expire()
        for deployment_id in await self._plane.db.read(claims.deployments_with_work):
            if served := self._catalog.by_id(deployment_id):
                await self._feed(served)
            else:
                await self._bury(deployment_id)

    async def _feed(self, served: Served) -> None:
        space = self._room(served)
        if not space.alone:
            return
        turns = self._turns.get(served.deployment_id, Turns())
        claim = partial(
            claims.claim,
            deployment_id=served.deployment_id,
            owner=self._owner,
            now=self._plane.clock.now(),
            alone=space.alone,
            lines=space.lines,
            turns=turns,
        )
        claimed = await self._plane.db.write(Guarded(claim))
        self._turns[served.deployment_id] = claims.turns_after(turns, claimed)
        for row in claimed:
            # failpoint claim.committed
            self._worker.start(row, served)

    def _room(self, served: Served) -> Room:
        endpoints, deployment_id = self._plane.endpoints, served.deployment_id
        demand = endpoints.demand(deployment_id)
        return room(
            sum(endpoint.capacity for endpoint in endpoints.ready(deployment_id)),
            demand.in_flight + demand.held + self._worker.unseen(deployment_id),
            served.mode,
        )

    async def _promote(self) -> None:
        now = self._plane.clock.now()
        if await self._plane.db.read(partial(claims.has_promotable, now=now)):
            await self._plane.db.write(Guarded(partial(claims.promote, now=now)))

    async def _expire(self) -> None:
        now = self._plane.clock.now()
        if await self._plane.db.read(partial(endings.has_overdue, now=now)):
            expire = Guarded(partial(endings.expire, now=now))
            self._notices.changed(await self._plane.db.write(expire))

    async def _bury(self, deployment_id: str) -> None:
        """Fail what waits for a deployment that is gone, if the database says so too."""
        now = self._plane.clock.now()

        def unit(session: Session) -> list[str]:
            row = session.get(Deployment, deployment_id)
            if row is not None and row.deleted_at is None and row.phase not in _GOING:
                return []
            failure = deployment_deleted(row.name if row else deployment_id)
            return endings.fail_queued(session, deployment_id, now, failure.model_dump())

        self._notices.changed(await self._plane.db.write(unit))
