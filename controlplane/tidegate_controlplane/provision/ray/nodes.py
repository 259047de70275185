"""The nodes of the cluster: an agent on each that lives, and what is wrong with the others."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from typing import NoReturn

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.cluster import ClusterNode
from tidegate_controlplane.provision.ray.agent import Orders
from tidegate_controlplane.provision.ray.connection import Connection, give_up, make_agent
from tidegate_controlplane.provision.ray.errands import Errands, answered
from tidegate_controlplane.provision.ray.node import Node
from tidegate_controlplane.provision.ray.reach import Reach

logger = logging.getLogger("tidegate.ray")
REFRESH_S = 1.0
"""Between looks at Ray's list of nodes."""
END_S = 15.0
"""For a node to end all of its replicas."""
AGAIN_S = 15.0
"""A node that was lost and is still on Ray's list is tried again after this time."""


class Nodes:
    """Follows Ray's list of nodes from `open` until `close`."""

    def __init__(
        self,
        connection: Connection,
        orders: Orders,
        reach: Reach,
        clock: Clock,
        changed: asyncio.Event,
        errands: Errands,
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._orders = orders
        self._reach = reach
        self._clock = clock
        self._changed = changed
        self._timeout_s = timeout_s
        self._nodes: dict[str, Node] = {}
        self._lost: dict[str, tuple[float, str]] = {}
        """When each node was lost that Ray still believes in, and why."""
        self._errands = errands
        self._refreshing: asyncio.Task[NoReturn] | None = None
        self._one_at_a_time = asyncio.Lock()

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    @property
    def open_ones(self) -> list[Node]:
        """Those whose agents answer."""
        return [node for node in self if node.is_open]

    @property
    def avoided(self) -> frozenset[str]:
        """The ids of nodes that nothing should be put on, whatever Ray believes."""
        return frozenset(self._lost)

    @property
    def facts(self) -> list[ClusterNode]:
        """Every node that something could be put on."""
        return [node.fact for node in self if node.fact.node_id not in self._lost]

    def troubles(self) -> list[str]:
        """What is wrong with the avoided ones, a sentence each."""
        return [why for _, why in self._lost.values()]

    async def open(self) -> None:
        """Begin to follow. Raises what Ray raises."""
        await self.refresh()
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def get(self, node_id: str) -> Node | None:
        """A node by its id, though it may have joined only now."""
        if node_id not in self._nodes:
            await self.refresh()
        return self._nodes.get(node_id)

    def find(self, node_id: str | None) -> Node | None:
        """A node by its id, as far as it is known."""
        return self._nodes.get(node_id) if node_id else None

    async def refresh(self) -> None:
        """An agent for every living node; a node that Ray has given up is lost."""
        async with self._one_at_a_time:
            facts = {fact.node_id: fact for fact in await self._connection.nodes()}
            for node in self:
                if node.fact.node_id not in facts:
                    node.lose("Ray declared it dead")
            self._lost = {key: value for key, value in self._lost.items() if key in facts}
            now = self._clock.monotonic()
            for key, fact in facts.items():
                since, _ = self._lost.get(key, (-AGAIN_S, ""))
                if key not in self._nodes and now - since >= AGAIN_S:
                    self._nodes[key] = await self._made(fact)

    async def close(self) -> None:
        """End the agents, and what is left of their replicas with them."""
        if self._refreshing:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for node in self:
            await answered(node.agent.close.remote(), END_S)
            await node.close()
            await self._connection.call(give_up, node.agent)

    async def _made(self, fact: ClusterNode) -> Node:
        name = f"{fact.node_id}-{secrets.token_hex(4)}"
        agent = await self._connection.call(make_agent, fact, name, self._orders)
        node = Node(fact, agent, self._reach, self._timeout_s, self._changed)
        node.on_opened, node.on_lost = self._trust, self._avoid
        return node

    def _trust(self, node: Node) -> None:
        self._lost.pop(node.fact.node_id, None)

    def _avoid(self, node: Node) -> None:
        self._lost[node.fact.node_id] = self._clock.monotonic(), node.lost or ""
        if self._nodes.get(node.fact.node_id) is node:
            del self._nodes[node.fact.node_id]
        self._errands.run(self._connection.call(give_up, node.agent))

    async def _keep_fresh(self) -> NoReturn:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception:
                logger.exception("Ray does not say which nodes there are")
