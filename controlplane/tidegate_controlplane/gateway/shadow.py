"""Copies of requests to a revision on trial: its answers are compared, and never returned.

A copy is made when the answer it is compared with is whole, so that nobody waits for it, and runs
at batch priority, so that it slows nobody on the same replica. Few run at once; what is too much,
or finds no replica, is dropped. A replica is told of an adapter before the first copy for it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.protocol.replica import Priority
from tidegate_controlplane.errors import DeadlinePassed
from tidegate_controlplane.gateway import hop
from tidegate_controlplane.gateway.adapters import bring
from tidegate_controlplane.gateway.answers import is_finished
from tidegate_controlplane.gateway.catalog import Adapter, Served
from tidegate_controlplane.gateway.hop import OK, Question, ReplicaFailed, ReplicaFull
from tidegate_controlplane.gateway.replica import Ask, Endpoint
from tidegate_controlplane.gateway.replica_client import ReplicaClient

LOG = logging.getLogger("tidegate.shadow")
AT_ONCE = 4
"""Copies under way for one deployment."""
COPY_S = 300.0
"""How long a copy may take."""
REQUEST_ID = "shadow"


@dataclass(frozen=True)
class Original:
    """A request as a replica of the former revision was asked it."""

    served: Served
    path: str
    body: bytes


class Copier:
    """Sends copies in the background."""

    def __init__(self, client: ReplicaClient) -> None:
        self._client = client
        self._running: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._turn = itertools.count()
        self._told: defaultdict[str, dict[Endpoint, set[Adapter]]] = defaultdict(dict)
        """By deployment: the adapters that each replica was told of."""

    def send(
        self,
        original: Original,
        targets: Sequence[Endpoint],
        compare: Callable[[bytes | None], None],
    ) -> None:
        """Ask one of `targets`; `compare` gets its answer, or None when it failed."""
        running = self._running[original.served.deployment_id]
        if len(running) >= AT_ONCE:
            return
        target = targets[next(self._turn) % len(targets)]
        task = asyncio.create_task(self._copy(original, target, compare))
        running.add(task)
        task.add_done_callback(running.discard)

    def drop(self, deployment_id: str) -> None:
        """End the copies of a deployment; nothing is compared any more."""
        self._told.pop(deployment_id, None)
        for task in self._running.pop(deployment_id, set()):
            task.cancel()

    async def close(self) -> None:
        """End every copy."""
        tasks = [task for running in self._running.values() for task in running]
        for deployment_id in list(self._running):
            self.drop(deployment_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy(
        self, original: Original, target: Endpoint, compare: Callable[[bytes | None], None]
    ) -> None:
        """A replica that takes nothing now is no fault of its revision, nor is an adapter whose
        source does not answer: the copy is dropped.
        """
        answer = None
        try:
            async with asyncio.timeout(COPY_S):
                answer = await self._ask(original, target)
        except ReplicaFull:
            return
        except (ReplicaFailed, DeadlinePassed, TimeoutError) as error:
            LOG.info("a copy to %s failed: %r", target.replica_id, error)
        compare(answer)

    async def _ask(self, original: Original, target: Endpoint) -> bytes | None:
        ask = Ask(original.served.project_id, Priority.BATCH)
        question = Question(original.path, original.body, REQUEST_ID, ask, whole=True)
        told = self._told[original.served.deployment_id].setdefault(target, set())
        response = await bring(
            self._client, target, told, original.served.adapter, REQUEST_ID
        ) or await self._client.send(target, question)
        try:
            body = await hop.beginning(response, whole=True)
        finally:
            response.close()
        if hop.is_elsewhere(response.status, body):
            raise ReplicaFull
        is_whole = response.content_type != hop.EVENT_STREAM or is_finished(body)
        return body if response.status == OK and is_whole else None
