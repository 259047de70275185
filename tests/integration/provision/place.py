"""A place with a provisioner, and ways to wait for what its replicas do."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import httpx
from tests.integration.provision.launch import launch

from tidegate.protocol.resources import ReplicaPhase
from tidegate_controlplane.domain.replicas import (
    Exited,
    NoCapacity,
    Observation,
    Running,
)
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import FormerReplica, Launch, Provisioner

ANSWER_S = 60.0


@dataclass
class Place:
    """What the cases of `conformance.py` need of a place. Its replicas are those of `replica.py`.

    A place says what it is called, starts its provisioner over, and is filled up; where a request
    does not go to the endpoint's URL as it stands, it also says how it goes.
    """

    provisioner: Provisioner
    name: ClassVar[str]
    """As a plan names it."""
    stands_on: ClassVar[str]
    """What is real here and what is not, for the table."""
    patience_s: ClassVar[float] = 60.0

    @abstractmethod
    async def crash(self) -> None:
        """Put a new `provisioner` in the place of one that was struck down without a word."""

    @abstractmethod
    def full(self) -> AbstractAsyncContextManager[None]:
        """Meanwhile there is no capacity for another replica."""

    def door(self, endpoint: Endpoint) -> str:
        """The URL of the replica itself."""
        return endpoint.url

    async def ask(self, endpoint: Endpoint, **body: Any) -> httpx.Response:
        """A request as the gateway sends it; what `body` may say is told in `replica.py`."""
        headers = {"authorization": f"Bearer {endpoint.token}"}
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as client:
            url = f"{self.door(endpoint)}/v1/chat/completions"
            return await client.post(url, json=body, headers=headers)

    async def said(self, endpoint: Endpoint) -> dict[str, Any] | None:
        """What the replica says of itself; None when none listens there."""
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as client:
            try:
                answer = await client.get(f"{self.door(endpoint)}/readyz")
            except httpx.TransportError:
                return None
        found: dict[str, Any] = answer.json()
        return found

    def launch(self, behaviour: str = "good", key: str = "rep_1") -> Launch:
        made = launch(behaviour, key)
        return replace(made, plan=made.plan.model_copy(update={"provisioner": self.name}))

    def former(self, key: str, seen: Running) -> FormerReplica:
        """What its row says after a restart."""
        return FormerReplica(key, "dep_1", self.name, seen.pid, seen.process_start)

    async def seen(self, key: str = "rep_1") -> Observation:
        return (await self.provisioner.observe([key]))[key]

    async def until(
        self,
        holds: Callable[[Observation], bool],
        key: str = "rep_1",
        within_s: float | None = None,
    ) -> Observation:
        async with asyncio.timeout(within_s or self.patience_s):
            while not holds(seen := await self.seen(key)):
                await asyncio.sleep(0.01)
            return seen

    async def ready(self, key: str = "rep_1") -> Running:
        seen = await self.until(lambda s: isinstance(s, Exited | NoCapacity) or is_ready(s), key)
        assert isinstance(seen, Running), seen
        return seen

    async def exited(self, key: str = "rep_1") -> Exited:
        seen = await self.until(lambda s: isinstance(s, Exited), key)
        assert isinstance(seen, Exited)
        return seen

    async def served(self, behaviour: str = "good", key: str = "rep_1") -> Endpoint:
        """The endpoint of a replica that was started and has become ready."""
        await self.provisioner.start(self.launch(behaviour, key))
        await self.ready(key)
        endpoint = self.provisioner.endpoint(key)
        assert endpoint is not None
        return endpoint

    async def gone(self, endpoint: Endpoint) -> None:
        """Until nobody listens there."""
        async with asyncio.timeout(self.patience_s):
            while await self.said(endpoint):
                await asyncio.sleep(0.01)

    async def texts(self, key: str = "rep_1") -> list[str]:
        return [line.text for line in await self.provisioner.logs(key, 0, 100)]


def is_ready(seen: Observation) -> bool:
    return isinstance(seen, Running) and seen.phase is ReplicaPhase.READY
