"""One node as the control plane sees it: what its agent says, and how long it has been silent.

A node is lost when its agent has died; or when its agent does not answer and none of its replicas
does either, which spares a node that only Ray cannot reach. Ray itself may take fifteen seconds and
more to declare a node dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.protocol.resources import ReplicaPhase
from tidegate.version import VERSION
from tidegate_controlplane.domain.cluster import ClusterNode
from tidegate_controlplane.domain.replicas import NODE_LOST, Exited, Missing, Observation, Running
from tidegate_controlplane.provision.ray.agent import RayEnded
from tidegate_controlplane.provision.ray.reach import Reach

logger = logging.getLogger("tidegate.ray")
LOOK_S = 0.5
"""An agent answers at least so often, and at once when something changed."""
PAUSE_S = 0.1
"""Before an agent that failed is asked again."""


class Node:
    """Watches a node from its making until it is lost or closed."""

    def __init__(
        self, fact: ClusterNode, agent: Any, reach: Reach, timeout_s: float, changed: asyncio.Event
    ) -> None:
        """An agent that does not answer within `timeout_s` is silent."""
        self.fact = fact
        self.agent = agent
        self.looks = 0
        """Answers so far."""
        self.lost: str | None = None
        """Why, in a sentence."""
        self._reach = reach
        self._timeout_s = timeout_s
        self._changed = changed
        self._seen: Mapping[str, Observation] = {}
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())
        self.on_opened: Callable[[Node], None] = lambda _: None
        self.on_lost: Callable[[Node], None] = lambda _: None

    @property
    def where(self) -> str:
        """For people."""
        return f"node {self.fact.address}"

    @property
    def is_open(self) -> bool:
        """Whether its agent answers."""
        return self._opened.done() and self.lost is None

    async def opened(self) -> None:
        """Until its agent answers, or it is lost."""
        await asyncio.wait({self._opened})

    def url(self, port: int) -> str:
        """Where a replica listens."""
        host = self.fact.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def seen(self, replica_id: str) -> Observation:
        """What is known of a replica that was started here."""
        if self.lost is not None:
            return Exited(1, NODE_LOST, self.lost)
        return self._seen.get(replica_id, Missing())

    def knows(self, replica_id: str) -> bool:
        """Whether its agent named the replica last, be it that there is no process yet."""
        return replica_id in self._seen

    def lose(self, why: str) -> None:
        """It is gone, with all that ran there. Again: nothing."""
        if self.lost is None:
            self.lost = f"{self.where} was lost: {why}"
            self._settle()
            logger.warning("%s", self.lost)
            if asyncio.current_task() is not self._watching:
                self._watching.cancel()
            self._changed.set()
            self.on_lost(self)

    async def close(self) -> None:
        """Watch no more."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._settle()

    def _settle(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    async def _watch(self) -> None:
        from ray.exceptions import RayError

        try:
            version = await self.agent.open.remote()
        except (RayError, OSError) as error:
            self.lose(f"its agent cannot work: {last_words(error)}")
            return
        if version != VERSION:
            self.lose(f"it runs tidegate {version}, and this is {VERSION}; install the same there")
            return
        self._settle()
        self.on_opened(self)
        while self.lost is None:
            await self._look()

    async def _look(self) -> None:
        from ray.exceptions import ActorDiedError, RayError

        try:
            async with asyncio.timeout(LOOK_S + self._timeout_s):
                seen = await self.agent.look.remote(LOOK_S)
        except (ActorDiedError, RayEnded) as error:
            self.lose(last_words(error))
        except TimeoutError:
            await self._suspect(f"its agent was silent for {LOOK_S + self._timeout_s:g} s")
        except RayError as error:
            await self._suspect(last_words(error))
        else:
            self._hear(seen)

    def _hear(self, seen: Mapping[str, Observation]) -> None:
        self.looks += 1
        for replica_id, one in seen.items():
            if isinstance(one, Running) and one.phase is ReplicaPhase.READY and one.port:
                self._reach.check(replica_id, self.url(one.port))
        if seen != self._seen:
            self._seen = seen
            self._changed.set()

    async def _suspect(self, why: str) -> None:
        """The agent does not answer: do its replicas?"""
        ports = [
            (key, one.port)
            for key, one in self._seen.items()
            if isinstance(one, Running) and one.phase is ReplicaPhase.READY and one.port
        ]
        asked = [self._reach.answers(key, self.url(port)) for key, port in ports]
        if any(await asyncio.gather(*asked)):
            logger.warning("%s: %s; its replicas answer", self.where, why)
            await asyncio.sleep(PAUSE_S)
        else:
            self.lose(why)


def last_words(error: BaseException) -> str:
    """The line of Ray's long messages that says what happened."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
