"""AWS as a place: a replica is one copy of a SageMaker inference component.

A deployment has a stack, with an endpoint for each of its revisions. One task per deployment keeps
it as it shall be (`keeper`): it brings the stack up, sets the number of copies, and looks what has
become of them. Starting, draining and ending a replica only say what shall be, and ring for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import LogLine, ReplicaPhase
from tidegate_controlplane.domain.replicas import Exited, Missing, Observation, Running
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.provision.aws.failures import AwsFailed
from tidegate_controlplane.provision.aws.keeper import Tools, keep
from tidegate_controlplane.provision.aws.names import address_of, component_name, stack_name
from tidegate_controlplane.provision.aws.program import arguments
from tidegate_controlplane.provision.aws.site import Component, Replica, Site
from tidegate_controlplane.provision.base import (
    FormerReplica,
    Holding,
    Launch,
    Notice,
    Provisioner,
    StartFailed,
)

logger = logging.getLogger("tidegate.provision")
SIGNED = "signed"
"""Where other replicas have a token: SageMaker wants a signature, and its copies want none."""


@dataclass(eq=False)
class _Removal:
    """A stack that is being destroyed, or could not be."""

    task: asyncio.Task[str | None]
    """Returns why it could not be."""
    again_s: float = 0.0
    """When it is tried once more, monotonic; 0 while it runs."""


class AwsPlace(Provisioner):
    """Implements `Provisioner` with copies of inference components."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._settings = tools.settings
        self._sites: dict[str, Site] = {}
        self._removals: dict[str, _Removal] = {}
        self._lowering: asyncio.Task[None] | None = None

    # --- one replica ---

    async def start(self, launch: Launch) -> None:
        if self._find(launch.replica_id):
            return
        if launch.deployment_id in self._removals:
            raise StartFailed("the stack of this deployment is being destroyed; declare it again")
        await asyncio.to_thread(arguments, self._settings, launch)  # which says what cannot be
        clock = self._tools.clock
        site = self._sites.setdefault(launch.deployment_id, Site(launch.deployment_id))
        name = component_name(self._settings, launch.revision_id)
        site.add(name, Replica(launch, clock.monotonic(), clock.now()))
        if site.keeping is None:
            task = keep(site, self._tools)
            site.keeping = asyncio.create_task(task, name=f"keep {site.deployment_id}")

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {replica_id: self._observe(replica_id) for replica_id in replica_ids}

    def known(self) -> list[str]:
        return [each.launch.replica_id for one in self._sites.values() for each in one.replicas()]

    def endpoint(self, replica_id: str) -> Endpoint | None:
        found = self._find(replica_id)
        if found is None or not found[1].is_ready:
            return None
        component, replica, _ = found
        return Endpoint(
            replica_id=replica_id,
            url=address_of(self._settings, component.name).url,
            token=SIGNED,
            capacity=replica.launch.plan.max_sequences,
        )

    async def drain(self, replica_id: str) -> None:
        await self.kill(replica_id)

    async def kill(self, replica_id: str) -> None:
        """Its copy is let go; SageMaker chooses which, and lets it finish what it has."""
        if found := self._find(replica_id):
            component, replica, site = found
            replica.is_unwanted = True
            if replica.ended is None and component.seen is None:
                replica.ended = Exited(0, "Drained", "it never had a copy")
            site.changed.set()

    async def forget(self, replica_id: str) -> None:
        if (found := self._find(replica_id)) and found[1].ended:
            component, _, site = found
            del component.replicas[replica_id]
            site.changed.set()

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        logs = self._tools.logs
        if (found := self._find(replica_id)) and found[1].ended is None:
            component, replica, _ = found
            await in_thread(logs.fetch, component.name, replica_id, replica.began_at)
        return await in_thread(logs.read, replica_id, offset, limit)

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        running = [
            each.launch.replica_id
            for site in self._sites.values()
            for each in site.replicas()
            if each.ended is None
        ]
        await in_thread(self._tools.logs.keep, {*replica_ids, *running})

    # --- a deployment ---

    async def remove(self, holding: Holding) -> str | None:
        key = holding.deployment_id
        name = stack_name(self._settings, key)
        removal, now = self._removals.get(key), self._tools.clock.monotonic()
        if removal is None or (removal.again_s and now >= removal.again_s):
            task = asyncio.create_task(self._destroy(key), name=f"destroy {name}")
            self._removals[key] = _Removal(task)
            return f"stack {name} is being destroyed"
        if not removal.task.done():
            return f"stack {name} is being destroyed"
        why = removal.task.result()
        if why is None:
            del self._removals[key]
        elif not removal.again_s:
            removal.again_s = now + self._tools.pace.failed_s
        return why

    async def _destroy(self, deployment_id: str) -> str | None:
        tools = self._tools
        if site := self._sites.pop(deployment_id, None):
            await _ended(site)
        try:
            tell = tools.teller(deployment_id)
            name = stack_name(self._settings, deployment_id)
            await in_thread(tools.stacks.destroy, name, tell)
        except AwsFailed as error:
            return error.failure.message
        finally:
            tools.changed.set()
        return None

    # --- all of them ---

    def notices(self) -> list[Notice]:
        taken, self._tools.notices = self._tools.notices, []
        return taken

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        """Copies may outlive their control plane for a while (`keep_copies_s`), to be used again.

        All that bear this installation's name are ended, with a row or without. Raises StartFailed
        when AWS cannot be asked.
        """
        del former
        try:
            names = await in_thread(self._tools.copies.ours)
        except AwsFailed as error:
            raise StartFailed(error.failure.message) from error
        keep_s = self._settings.keep_copies_s
        if not keep_s:
            await self._lower(names)
            return
        until = self._tools.clock.monotonic() + keep_s
        self._tools.lingering |= dict.fromkeys(names, until)
        if self._lowering:
            self._lowering.cancel()
        self._lowering = asyncio.create_task(self._lower_later(names, keep_s), name="lower copies")

    async def end_all(self) -> None:
        """As `sweep`: with `keep_copies_s` the copies are left to the next control plane."""
        sites = list(self._sites.values())
        self._sites.clear()
        await asyncio.gather(*map(_ended, sites))
        if not self._settings.keep_copies_s:
            await self._lower([one.name for site in sites for one in site.components.values()])

    async def close(self) -> None:
        self._tools.stacks.interrupt()
        removals = [removal.task for removal in self._removals.values()]
        tasks = [*removals, *([self._lowering] if self._lowering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.end_all()

    async def _lower_later(self, names: Sequence[str], after_s: float) -> None:
        """End the copies that an earlier control plane left and that nobody has asked for."""
        await asyncio.sleep(after_s)
        used = {one.name for site in self._sites.values() for one in site.components.values()}
        await self._lower([name for name in names if name not in used])

    async def _lower(self, names: Iterable[str]) -> None:
        """Until none of these components has a copy."""
        left = set(names)
        while left:
            for name in list(left):
                try:
                    if await in_thread(self._is_lowered, name):
                        left.discard(name)
                except AwsFailed as error:
                    logger.error("copies of %s may still run: %s", name, error)
                    left.discard(name)
            if left:
                await asyncio.sleep(self._tools.pace.moving_s)

    def _is_lowered(self, name: str) -> bool:
        seen = self._tools.copies.seen(name)
        if seen is None or not (seen.current or seen.desired):
            return True
        if seen.desired and seen.takes_changes:
            self._tools.copies.set(name, 0)
        return False

    # --- inside ---

    def _find(self, replica_id: str) -> tuple[Component, Replica, Site] | None:
        for site in self._sites.values():
            if found := site.find(replica_id):
                return *found, site
        return None

    def _observe(self, replica_id: str) -> Observation:
        found = self._find(replica_id)
        if found is None:
            return Missing()
        component, replica, _ = found
        if replica.ended:
            return replica.ended
        waited_s = self._tools.clock.monotonic() - replica.began_s
        phase = ReplicaPhase.LOADING if component.seen else ReplicaPhase.STARTING
        return Running(
            phase=ReplicaPhase.READY if replica.is_ready else phase,
            overdue=not replica.is_ready and waited_s > self._settings.start_timeout_s,
            where=_where(replica.launch),
        )


async def _ended(site: Site) -> None:
    if site.keeping:
        site.keeping.cancel()
        await asyncio.gather(site.keeping, return_exceptions=True)


def _where(launch: Launch) -> str | None:
    offer = launch.plan.offer
    return f"{offer.region} {offer.instance_type}" if offer else None
