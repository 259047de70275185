"""Copies of requests to a revision on trial: its answers are compared, and never returned.

A copy is made when the answer it is compared with is whole, so that nobody waits for it, and runs
at batch priority, so that it slows nobody on the same replica. Few run at once; what is too much,
or finds no replica, is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from tidegate.protocol.replica import PRIORITY_HEADER, PROJECT_HEADER, Priority
from tidegate_controlplane.gateway.answers import is_finished
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoint

LOG = logging.getLogger("tidegate.shadow")
AT_ONCE = 4
"""Copies under way for one deployment."""
COPY_S = 300.0
"""How long a copy may take."""
OK = 200


@dataclass(frozen=True)
class Original:
    """A request as a replica of the former revision was asked it."""

    served: Served
    path: str
    body: bytes


class Copier:
    """Sends copies in the background."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._running: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._turn = itertools.count()

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
        try:
            async with asyncio.timeout(COPY_S):
                answer = await self._ask(original, target)
        except (httpx.HTTPError, TimeoutError) as error:
            LOG.info("a copy to %s failed: %r", target.replica_id, error)
            answer = None
        compare(answer)

    async def _ask(self, original: Original, target: Endpoint) -> bytes | None:
        response = await self._client.post(
            target.url.rstrip("/") + original.path,
            content=original.body,
            headers={
                "authorization": f"Bearer {target.token}",
                "content-type": "application/json",
                "accept-encoding": "identity",
                PROJECT_HEADER: original.served.project_id,
                PRIORITY_HEADER: str(Priority.BATCH.value),
            },
        )
        is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        is_whole = not is_stream or is_finished(response.content)
        return response.content if response.status_code == OK and is_whole else None
