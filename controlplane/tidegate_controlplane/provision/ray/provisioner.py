"""Replicas on the nodes of a Ray cluster.

Ray decides where: a replica's *seat* is an actor that asks for its CPUs, memory and GPUs. The
*agent* of that node then starts the replica's process, as `local` would there, and the gateway
speaks to it by HTTP: no request passes through Ray. Seats and agents die with this process, and
replicas with either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate.protocol.resources import LogLine, ReplicaPhase, ResolvedPlan
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.cluster import needs_of
from tidegate_controlplane.domain.replicas import (
    Exited,
    Missing,
    NoCapacity,
    Observation,
    Running,
)
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import (
    FormerReplica,
    Launch,
    Notice,
    Provisioner,
    StartFailed,
)
from tidegate_controlplane.provision.ray.agent import Orders
from tidegate_controlplane.provision.ray.connection import Connection
from tidegate_controlplane.provision.ray.errands import Errands, answered
from tidegate_controlplane.provision.ray.node import Node, last_words
from tidegate_controlplane.provision.ray.nodes import END_S, Nodes
from tidegate_controlplane.provision.ray.reach import Reach
from tidegate_controlplane.provision.ray.seats import NoRoom, Seats, Taken
from tidegate_controlplane.provision.ray.supply import Supply
from tidegate_controlplane.provision.ray.transfer import Damaged
from tidegate_controlplane.settings import RaySettings

logger = logging.getLogger("tidegate.ray")
STARTING = (ReplicaPhase.STARTING, ReplicaPhase.LOADING)
LOST_LOOKS = 3
"""An agent that answered so often and does not name a replica, does not have it."""


@dataclass
class _Replica:
    launch: Launch
    token: str = field(repr=False)
    requested_at: float
    taken: Taken = field(default_factory=Taken)
    placing: asyncio.Task[None] | None = None
    node: Node | None = None
    """None until it has a seat."""
    looks: int | None = None
    """How often its node had answered when it was started there; None before that."""
    end: Observation | None = None
    """Why it never became a process."""


class RayProvisioner(Provisioner):
    """Implements `Provisioner`. `open` it first."""

    def __init__(
        self,
        settings: RaySettings,
        orders: Orders,
        clock: Clock,
        changed: asyncio.Event,
        token_of: Callable[[str], str],
    ) -> None:
        """`changed` is set when a replica is not as it was."""
        self._start_timeout_s = orders.settings.start_timeout_s
        self._clock = clock
        self._changed = changed
        self._token_of = token_of
        self._replicas: dict[str, _Replica] = {}
        self._homes: dict[str, str] = {}
        """The node that has a replica's log."""
        self._notices: list[Notice] = []
        self._errands = Errands()
        self._connection = Connection(settings.address, settings.namespace)
        self._reach = Reach(orders.settings, clock, changed)
        self._nodes = Nodes(
            self._connection,
            orders,
            self._reach,
            clock,
            changed,
            self._errands,
            settings.node_timeout_s,
        )
        self._seats = Seats(self._connection, self._nodes, self._errands, settings.capacity_wait_s)
        self._supply = Supply(self._nodes, self._is_starting, self._tell)

    async def open(self) -> None:
        """Connect, and make an agent on every node. Raises StartFailed."""
        try:
            await self._connection.open()
            await self._nodes.open()
        except BaseException:
            await self.close()
            raise

    async def start(self, launch: Launch) -> None:
        if launch.replica_id in self._replicas:
            return
        token, now = self._token_of(launch.replica_id), self._clock.monotonic()
        one = self._replicas[launch.replica_id] = _Replica(launch, token, now)
        one.placing = asyncio.create_task(self._place(one))

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {replica_id: self._observe(replica_id) for replica_id in replica_ids}

    def known(self) -> list[str]:
        return list(self._replicas)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        one = self._replicas.get(replica_id)
        if one is None or one.node is None:
            return None
        seen = one.node.seen(replica_id)
        if not isinstance(seen, Running) or seen.port is None:
            return None
        return Endpoint(
            replica_id=replica_id,
            url=one.node.url(seen.port),
            token=one.token,
            capacity=one.launch.plan.max_sequences,
        )

    async def drain(self, replica_id: str) -> None:
        if (one := self._replicas.get(replica_id)) and (node := self._unless_unstarted(one)):
            self._errands.run(node.agent.drain.remote(replica_id))

    async def kill(self, replica_id: str) -> None:
        if (one := self._replicas.get(replica_id)) and (node := self._unless_unstarted(one)):
            self._errands.run(node.agent.kill.remote(replica_id))

    async def forget(self, replica_id: str) -> None:
        one = self._replicas.get(replica_id)
        if one is None or isinstance(self._observe(replica_id), Running | Missing):
            return
        del self._replicas[replica_id]
        self._reach.forget(replica_id)
        self._seats.release(one.taken)
        if one.node and one.node.is_open:
            self._errands.run(one.node.agent.forget.remote(replica_id))

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        kept = frozenset(replica_ids)
        self._homes = {key: node for key, node in self._homes.items() if key in kept}
        for node in self._nodes.open_ones:
            await answered(node.agent.keep_files.remote(kept))

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        """Ray ends what a driver made when that is gone; `open` has ended the rest by name."""
        del former

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        home = self._nodes.find(self._homes.get(replica_id))
        asked = [home] if home else self._nodes.open_ones
        calls = [node.agent.logs.remote(replica_id, offset, limit) for node in asked]
        found = await asyncio.gather(*(answered(call) for call in calls))
        return next((lines for lines in found if lines), [])

    async def shortage(self, plan: ResolvedPlan) -> str | None:
        return self._seats.shortage(needs_of(plan))

    def notices(self) -> list[Notice]:
        told, self._notices = self._notices, []
        return told

    async def end_all(self) -> None:
        replicas = list(self._replicas.values())
        placing = [one.placing for one in replicas if one.placing]
        for task in placing:
            task.cancel()
        await asyncio.gather(*placing, return_exceptions=True)
        ends = [node.agent.end_all.remote() for node in self._nodes.open_ones]
        await asyncio.gather(*(answered(end, END_S) for end in ends))
        for one in replicas:
            self._reach.forget(one.launch.replica_id)
            self._seats.release(one.taken)
            self._replicas.pop(one.launch.replica_id, None)
        await self._errands.done()

    async def close(self) -> None:
        await self.end_all()
        await self._nodes.close()
        await self._errands.done()
        await self._reach.close()
        await self._connection.close()

    # --- a replica ---

    def _observe(self, replica_id: str) -> Observation:
        one = self._replicas.get(replica_id)
        if one is None:
            return Missing()
        if one.end or one.node is None:
            return one.end or Missing()
        seen = one.node.seen(replica_id)
        overdue = self._clock.monotonic() - one.requested_at > self._start_timeout_s
        if isinstance(seen, Missing):
            looks = 0 if one.looks is None else one.node.looks - one.looks
            if looks >= LOST_LOOKS and not one.node.knows(replica_id):
                return Exited(1, "Lost", f"the agent of {one.node.where} knows nothing of it")
            return Running(ReplicaPhase.STARTING, overdue=overdue, where=one.node.where)
        if not isinstance(seen, Running):
            return seen
        phase = seen.phase
        if phase is ReplicaPhase.READY and not self._reach.has_answered(replica_id):
            phase = ReplicaPhase.LOADING  # it is of no use before this process reaches it
        return replace(
            seen,
            phase=phase,
            pid=None,
            process_start=None,
            healthy=seen.healthy and not self._reach.is_cut_off(replica_id),
            overdue=overdue,
            where=one.node.where,
        )

    def _is_starting(self, replica_id: str) -> bool:
        seen = self._observe(replica_id)
        return isinstance(seen, Running) and seen.phase in STARTING

    async def _place(self, one: _Replica) -> None:
        """Find a node, bring there what it reads, and start it."""
        from ray.exceptions import RayError

        launch = one.launch
        try:
            place = await self._seats.take(one.taken, launch.replica_id, needs_of(launch.plan))
            node = one.node = await self._nodes.get(place.node_id)
            if node is None:
                raise StartFailed(f"Ray chose a node that is gone: {place.node_id}")
            self._homes[launch.replica_id] = place.node_id
            self._changed.set()
            await node.opened()
            there = await self._supply.provide(node, launch)
            await node.agent.start.remote(there, one.token, place)
            one.looks = node.looks
        except NoRoom as error:
            one.end = NoCapacity(str(error))
        except (StartFailed, Damaged, OSError, RayError) as error:
            if one.node is None or one.node.lost is None:
                one.end = Exited(1, "StartFailed", last_words(error))
        finally:
            if one.end:
                self._seats.release(one.taken)
            self._changed.set()

    def _unless_unstarted(self, one: _Replica) -> Node | None:
        """The node that is to end it, if it answers; what is no process yet never becomes one."""
        if one.end is None and one.looks is None:
            if one.placing:
                one.placing.cancel()
            one.end = Exited(0, "Ended", "it was not wanted any more before it had started")
            self._seats.release(one.taken)
        return one.node if one.node and one.node.is_open else None

    def _tell(self, launch: Launch, message: str) -> None:
        logger.info("%s: %s", launch.replica_id, message)
        notice = Notice(launch.deployment_id, "Copied", message, replica_id=launch.replica_id)
        self._notices.append(notice)
