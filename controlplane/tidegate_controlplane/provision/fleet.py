"""Every place where replicas run, behind the contract of one.

A replica belongs to the place that its plan names. A place is opened when it is first needed, which
goes on beneath: a replica that is to start there stays requested meanwhile. What an earlier control
plane left at a place is ended as soon as the place is open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from tidegate.protocol.resources import LogLine, ResolvedPlan, Severity
from tidegate_controlplane.domain.replicas import Missing, Observation
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import (
    FormerReplica,
    Holding,
    Launch,
    Notice,
    Provisioner,
    StartFailed,
)

log = logging.getLogger("tidegate.provision")
Open = Callable[[], Awaitable[Provisioner]]
"""Opens a place, or leaves nothing behind. Raises StartFailed with what to do."""
REOPEN_S = 10.0
"""Between tries to open a place where an earlier control plane left replicas."""


class Fleet(Provisioner):
    """Implements `Provisioner` by asking that of the place in question."""

    def __init__(
        self,
        opened: Mapping[str, Provisioner],
        openers: Mapping[str, Open],
        holders: Collection[str] = (),
    ) -> None:
        """`opened` are there from the start; each of `openers` is called when it is needed.

        `holders` may hold something for a deployment beside its replicas: these alone are opened to
        remove it.
        """
        self._places = dict(opened)
        self._openers = openers
        self._holders = holders
        self._opening: dict[str, asyncio.Task[Provisioner]] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self._at: dict[str, str] = {}
        """The place of each replica that was started here."""
        self._former: dict[str, list[FormerReplica]] = {}
        """What is to be swept once its place is open."""
        self._kept: Collection[str] | None = None
        self._notices: list[Notice] = []

    # --- one replica ---

    async def start(self, launch: Launch) -> None:
        name = launch.plan.provisioner
        if place := self._when_open(name):
            self._at[launch.replica_id] = name
            await place.start(launch)

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        found: dict[str, Observation] = dict.fromkeys(replica_ids, Missing())
        for name, place in self._places.items():
            if own := [key for key in replica_ids if self._at.get(key) == name]:
                found |= await place.observe(own)
        return found

    def known(self) -> list[str]:
        return [key for place in self._places.values() for key in place.known()]

    def endpoint(self, replica_id: str) -> Endpoint | None:
        place = self._of(replica_id)
        return place.endpoint(replica_id) if place else None

    async def drain(self, replica_id: str) -> None:
        if place := self._of(replica_id):
            await place.drain(replica_id)

    async def kill(self, replica_id: str) -> None:
        if place := self._of(replica_id):
            await place.kill(replica_id)

    async def forget(self, replica_id: str) -> None:
        if place := self._of(replica_id):
            await place.forget(replica_id)

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        """Of a replica from before the last start, from whichever place has them."""
        place = self._of(replica_id)
        for each in [place] if place else list(self._places.values()):
            if lines := await each.logs(replica_id, offset, limit):
                return lines
        return []

    # --- a deployment ---

    async def remove(self, holding: Holding) -> str | None:
        name = holding.provisioner
        if name not in self._holders:
            return None
        try:
            place = self._when_open(name)
        except StartFailed as error:
            return str(error)
        return await place.remove(holding) if place else f"{name} is being opened"

    async def shortage(self, plan: ResolvedPlan) -> str | None:
        try:
            place = await self._open(plan.provisioner)
        except StartFailed as error:
            return str(error)
        return await place.shortage(plan)

    # --- all of them ---

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        self._kept = replica_ids
        kept = {*replica_ids, *self.known()}
        self._at = {key: name for key, name in self._at.items() if key in kept}
        for place in self._places.values():
            await place.keep_files(replica_ids)

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        for each in former:
            self._former.setdefault(each.provisioner, []).append(each)
        for name in list(self._places):
            await self._sweep(name)
        for name in list(self._former):
            task = asyncio.create_task(self._clear(name), name=f"sweep {name}")
            self._clearing.add(task)
            task.add_done_callback(self._clearing.discard)

    def notices(self) -> list[Notice]:
        taken, self._notices = self._notices, []
        return [*taken, *(each for place in self._places.values() for each in place.notices())]

    async def end_all(self) -> None:
        await asyncio.gather(*(place.end_all() for place in self._places.values()))

    async def close(self) -> None:
        tasks = [*self._clearing, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(place.close() for place in self._places.values()))

    # --- opening ---

    def _of(self, replica_id: str) -> Provisioner | None:
        name = self._at.get(replica_id)
        return self._places.get(name) if name else None

    def _when_open(self, name: str) -> Provisioner | None:
        """The place; None while it is being opened. Raises StartFailed when that has failed."""
        if place := self._places.get(name):
            return place
        task = self._begin_to_open(name)
        if not task.done():
            return None
        del self._opening[name]
        return task.result()

    async def _open(self, name: str) -> Provisioner:
        if place := self._places.get(name):
            return place
        task = self._begin_to_open(name)
        try:
            return await asyncio.shield(task)
        except StartFailed:
            if self._opening.get(name) is task:
                del self._opening[name]
            raise

    def _begin_to_open(self, name: str) -> asyncio.Task[Provisioner]:
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(self._opened(name), name=f"open {name}")
        return self._opening[name]

    async def _opened(self, name: str) -> Provisioner:
        if name not in self._openers:
            raise StartFailed(
                f"{name!r} is not set up here; set `{name}` in the settings and start again"
            )
        place = await self._openers[name]()
        try:
            if self._kept is not None:
                await place.keep_files(self._kept)
            await self._sweep_all(place, name)
        except BaseException:
            await place.close()
            raise
        self._places[name] = place
        del self._opening[name]  # else it would be given out again once the place is closed
        return place

    async def _sweep(self, name: str) -> None:
        """A place that cannot be asked is closed: it is swept before it is used again."""
        try:
            await self._sweep_all(self._places[name], name)
        except StartFailed as error:
            log.error("%s is closed until it can be asked again: %s", name, error)
            await self._places.pop(name).close()

    async def _sweep_all(self, place: Provisioner, name: str) -> None:
        """Also of what is said to be there while it sweeps. Raises StartFailed."""
        swept = None
        while swept != (former := list(self._former.get(name, []))):
            await place.sweep(former)
            swept = former
        self._former.pop(name, None)

    async def _clear(self, name: str) -> None:
        """Open a place until what was left there has been swept."""
        told = False
        while name in self._former:
            try:
                await self._open(name)
            except StartFailed as error:
                if not told:
                    self._tell(self._former.get(name, []), str(error))
                told = True
                await asyncio.sleep(REOPEN_S)

    def _tell(self, former: Iterable[FormerReplica], why: str) -> None:
        for deployment_id in sorted({each.deployment_id for each in former}):
            log.error("replicas of deployment %s may still run: %s", deployment_id, why)
            message = f"replicas that an earlier control plane started may still run: {why}"
            self._notices.append(Notice(deployment_id, "PlaceUnreachable", message, Severity.ERROR))
