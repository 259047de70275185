"""One of several control planes: it looks, tells, and leads when nobody else does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlmodel import Session

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.leadership import Claim, may_take_over
from tidegate_controlplane.domain.sighting import Sighting, observe
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.demand import Demand
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.peers.crowd import Crowd, Told
from tidegate_controlplane.peers.place import Place
from tidegate_controlplane.peers.publisher import Subscriber
from tidegate_controlplane.peers.refresh import Refresh
from tidegate_controlplane.peers.term import MakeReconciler, Term
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.settings import PeerSettings
from tidegate_controlplane.store import leadership, planes
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.leadership import Deposed
from tidegate_controlplane.store.planes import View
from tidegate_controlplane.store.tables import ControlPlane
from tidegate_controlplane.work.loop import Loop

T = TypeVar("T")
BEATS_OF_LIFE = 3
"""For so many of its beats another one is watched before it counts as gone."""
log = logging.getLogger("tidegate.peers")


@dataclass(frozen=True)
class Parts:
    """What a membership works with."""

    database: Database
    endpoints: Endpoints
    catalog: Catalog
    refresh: Refresh
    provisioner: Provisioner
    make_reconciler: MakeReconciler
    token_of: Callable[[str], str]
    clock: Clock
    settings: PeerSettings
    shutdown_s: float
    """Seconds that requests in flight may finish when this process stops."""


class Membership:
    """Implements `Elsewhere`. Enter it once the rooms are ready; leave it before they go."""

    def __init__(self, parts: Parts, place: Place, pepper_path: Path) -> None:
        self._parts = parts
        self._place = place
        self._pepper_path = pepper_path
        self._row = ControlPlane(id=new_id("cp"), place=place.model_dump(), demand={})
        self._crowd = Crowd(parts.settings.stale_s)
        self._subscriber = Subscriber(parts.database, parts.endpoints, parts.token_of)
        self._loop = Loop("control planes", self.tick, parts.settings.poll_s)
        self._sighting: Sighting[Claim] | None = None
        self._term: Term | None = None
        self._published = 0
        self._told_s = self._beaten_s = float("-inf")

    # --- what others ask ---

    def leads(self) -> bool:
        """Whether this one reconciles, as far as it knows."""
        return self._term is not None

    def demand(self, deployment_id: str) -> Iterator[Demand]:
        return self._crowd.demand(deployment_id)

    def in_flight_on(self, replica_id: str) -> int:
        return self._crowd.in_flight_on(replica_id)

    def lags(self) -> bool:
        pending = self._term is not None and bool(self._term.publisher.changed())
        return self._crowd.has_any and (pending or self._crowd.lags(self._published))

    # --- its life ---

    async def __aenter__(self) -> Membership:
        """Join. Raises StartError when one that runs cannot be of the same platform."""
        await self._tell()
        try:
            await self._check_agreement()
        except BaseException:
            await self._leave()
            raise
        self._parts.endpoints.elsewhere = self
        await self.tick()
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()
        if self._term is not None:
            await self._retire(self._term)
        await self._leave()

    async def tick(self) -> None:
        """Look at every row, and do what follows from it."""
        view = await self._look()
        now_s = self._parts.clock.monotonic()
        self._sighting = observe(self._sighting, view.claim, now_s)
        await self._parts.refresh.see(view)
        if self._term is not None:
            await self._lead(self._term, view, now_s)
        else:
            await self._follow(self._sighting, view, now_s)
        await self._tell_when_due(now_s)

    async def _look(self) -> View:
        """Everything that is said, and what of it concerns the others' requests."""
        view = await self._parts.database.read(planes.look)
        others = [row for row in view.planes if row.id != self._row.id]
        if self._crowd.see(others, self._parts.clock.monotonic()):
            self._parts.endpoints.wanted.set()
        return view

    # --- leading and following ---

    async def _lead(self, term: Term, view: View, now_s: float) -> None:
        self._published = view.published
        if term.has_ended or view.claim.epoch != term.epoch:
            await self._end_term(term)
            return
        try:
            self._published += await term.publisher.write()
            if now_s - self._beaten_s >= self._parts.settings.beat_s:
                self._beaten_s = now_s
                await self._write(partial(leadership.beat, epoch=term.epoch))
        except Deposed:
            await self._end_term(term)
        for gone in self._crowd.silent(self._parts.settings.forget_s):
            await self._write(partial(planes.leave, plane_id=gone))

    async def _retire(self, term: Term) -> None:
        """Offer no replica, let the others' requests end within the time of a stop, and go."""
        clock, settings = self._parts.clock, self._parts.settings
        until_s = clock.monotonic() + self._parts.shutdown_s
        await term.halt()
        self._parts.endpoints.withdraw()
        with suppress(Deposed):
            while clock.monotonic() < until_s:
                await term.publisher.write()
                await self._write(partial(leadership.beat, epoch=term.epoch))
                view = await self._look()
                if not (self._crowd.lags(view.published) or self._crowd.is_served()):
                    break
                await asyncio.sleep(settings.poll_s)
        await self._end_term(term)

    async def _end_term(self, term: Term) -> None:
        self._term, self._published = None, -1
        self._parts.endpoints.withdraw()
        await term.end()
        await self._write(partial(leadership.step_down, epoch=term.epoch))
        log.info("term %d has ended here", term.epoch)

    async def _follow(self, sighting: Sighting[Claim], view: View, now_s: float) -> None:
        settings = self._parts.settings
        if may_take_over(sighting, now_s, settings.lease_s):
            await self._take_over(sighting)
        elif view.published != self._published:
            living = {served.deployment_id for served in self._parts.catalog.all()}
            await self._subscriber.read(living)
            self._published = view.published

    async def _take_over(self, sighting: Sighting[Claim]) -> None:
        parts = self._parts
        epoch = await self._write(
            partial(leadership.take_over, seen=sighting.value, owner=self._row.id)
        )
        if epoch is not None:
            log.info("this control plane reconciles now, in term %d", epoch)
            self._term = Term(
                epoch, parts.database, parts.endpoints, parts.provisioner, parts.make_reconciler
            )

    # --- its own row ---

    async def _tell_when_due(self, now_s: float) -> None:
        """At each beat; at once when a request here finds no replica, and another one leads."""
        wanted = self._parts.endpoints.wanted
        urgent = self._term is None and wanted.is_set()
        if urgent:
            wanted.clear()
        if urgent or now_s - self._told_s >= self._parts.settings.beat_s:
            self._told_s = now_s
            await self._tell()

    async def _tell(self) -> None:
        endpoints = self._parts.endpoints
        told = Told(demand=endpoints.own_demands(), in_flight=endpoints.own_in_flight())
        self._row = ControlPlane(
            id=self._row.id,
            beat=self._row.beat + 1,
            place=self._row.place,
            demand=told.model_dump(mode="json"),
            seen=self._published,
        )
        await self._write(partial(planes.tell, plane=self._row.model_copy()))

    async def _leave(self) -> None:
        await self._write(partial(planes.leave, plane_id=self._row.id))

    async def _check_agreement(self) -> None:
        """Raise StartError when another one disagrees and shows that it lives."""
        disagreeing = await self._disagreeing()
        if disagreeing:
            await asyncio.sleep(BEATS_OF_LIFE * self._parts.settings.beat_s)
            for key, (beat, why) in (await self._disagreeing()).items():
                if key in disagreeing and beat != disagreeing[key][0]:
                    raise StartError(f"another control plane uses this database ({key}): {why}")

    async def _disagreeing(self) -> dict[str, tuple[int, str]]:
        """Beat and reason of each that cannot be of the same platform."""
        view = await self._parts.database.read(planes.look)
        found = {}
        for row in view.planes:
            other = Place.model_validate(row.place)
            if why := self._place.disagreement(other, self._pepper_path):
                found[row.id] = (row.beat, why)
        return found

    async def _write(self, unit: Callable[[Session], T]) -> T:
        """Each of these names what it saw, and takes no turn among the others."""
        return await self._parts.database.write(Guarded(unit))
