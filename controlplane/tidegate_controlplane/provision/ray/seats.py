"""Room for replicas: reserved by a placement group, held by a seat in it.

The reservation is of one bundle, so that all of a replica's GPUs are on one node or none is taken.
It is made before there is a process, which tells a cluster without room from one that is slow.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

from tidegate_controlplane.domain.cluster import Needs, all_taken, too_large
from tidegate_controlplane.provision.ray.connection import (
    Connection,
    let_go,
    reserve,
    state_of,
)
from tidegate_controlplane.provision.ray.errands import Errands
from tidegate_controlplane.provision.ray.nodes import Nodes
from tidegate_controlplane.provision.ray.seat import Place

POLL_S = 0.05
MADE = "CREATED"


class NoRoom(Exception):
    """There is no capacity; the message says what is missing and what there is."""


@dataclass
class Taken:
    """What is held for one replica, as far as it has come."""

    group: Any = None
    actor: Any = None
    is_unwanted: bool = False
    """It is to be let go as soon as it is made."""


class Seats:
    """Takes them for replicas, on nodes that are not avoided."""

    def __init__(
        self, connection: Connection, nodes: Nodes, errands: Errands, capacity_wait_s: float
    ) -> None:
        self._connection = connection
        self._nodes = nodes
        self._errands = errands
        self._wait_s = capacity_wait_s

    async def take(self, taken: Taken, name: str, needs: Needs) -> Place:
        """Room on one node that is not avoided, held in `taken` until it is released.

        Raises NoRoom, and what Ray raises.
        """
        if why := self.shortage(needs):
            raise NoRoom(why)
        while True:
            avoided = self._nodes.avoided
            await self._reserve(taken, f"{name}-{secrets.token_hex(4)}", needs, avoided)
            if await self._is_made(taken, needs, avoided):
                place = await self._sat(taken, avoided)
                if place is not None:
                    return place
            self._drop(taken)

    def release(self, taken: Taken) -> None:
        """Give it back, also while it is being made."""
        taken.is_unwanted = True
        self._drop(taken)

    def shortage(self, needs: Needs) -> str | None:
        """Why no node could ever hold it."""
        why = too_large(needs, self._nodes.facts)
        return why and self._with_troubles(why)

    async def _reserve(
        self, taken: Taken, name: str, needs: Needs, avoided: frozenset[str]
    ) -> None:
        """Whoever cancels this does not lose what it makes."""

        def keep(made: asyncio.Future[tuple[Any, Any]]) -> None:
            if not made.cancelled() and not made.exception():
                taken.group, taken.actor = made.result()
                if taken.is_unwanted:
                    self._drop(taken)

        making = asyncio.ensure_future(self._connection.call(reserve, name, needs, avoided))
        making.add_done_callback(keep)
        await asyncio.shield(making)

    async def _is_made(self, taken: Taken, needs: Needs, avoided: frozenset[str]) -> bool:
        """False when a node was lost meanwhile, which Ray may still reckon with. Raises NoRoom."""
        try:
            async with asyncio.timeout(self._wait_s):
                while await self._connection.call(state_of, taken.group) != MADE:
                    if not avoided >= self._nodes.avoided:
                        return False
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            why = all_taken(needs, self._nodes.facts, self._wait_s)
            raise NoRoom(self._with_troubles(why)) from None
        return True

    async def _sat(self, taken: Taken, avoided: frozenset[str]) -> Place | None:
        """Where its actor runs; None when a node was lost before it did."""
        from ray.exceptions import RayActorError

        answer: asyncio.Future[Place] = asyncio.ensure_future(taken.actor.place.remote())
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=POLL_S)
                if not avoided >= self._nodes.avoided:
                    return None
            return answer.result()
        except RayActorError:
            await asyncio.sleep(POLL_S)
            return None
        finally:
            answer.cancel()

    def _drop(self, taken: Taken) -> None:
        group, actor, taken.group, taken.actor = taken.group, taken.actor, None, None
        if group is not None:
            self._errands.run(self._connection.call(let_go, actor, group))

    def _with_troubles(self, why: str) -> str:
        return "; ".join([why, *(f"not counted: {one}" for one in self._nodes.troubles())])
