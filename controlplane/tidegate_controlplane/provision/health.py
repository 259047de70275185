"""Health checks of child processes: asked in the background, read at the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx

from tidegate.protocol.replica import ReplicaReady
from tidegate_controlplane.provision.local_child import LocalChild
from tidegate_controlplane.provision.log import bound
from tidegate_controlplane.settings import ReconcileSettings


class HealthChecks:
    """Asks the replicas whose files are in `directory`; `url_of` makes a port's URL."""

    def __init__(
        self,
        directory: Path,
        settings: ReconcileSettings,
        url_of: Callable[[int], str],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._url_of = url_of
        self._client = httpx.AsyncClient(timeout=settings.health_timeout_s, trust_env=False)

    def check(self, child: LocalChild, now: float) -> None:
        """Start a check in the background when one is due; its outcome is read next time."""
        if child.check and not child.check.done():
            return
        if child.check is None or now - child.checked_at >= self._settings.health_interval_s:
            child.checked_at = now
            child.check = asyncio.create_task(self._check(child))

    async def _check(self, child: LocalChild) -> None:
        """A process that lost its port to another one is not healthy, whatever that one says."""
        await asyncio.to_thread(bound, self._directory / child.launch.replica_id / "log")
        try:
            answer = await self._client.get(self._url_of(child.port or 0) + "/readyz")
            ready = ReplicaReady.model_validate_json(answer.content)
        except (httpx.HTTPError, ValueError):
            child.failed_checks += 1
            return
        own = ready.replica_id == child.launch.replica_id
        child.said = ready if own else None
        child.failed_checks = 0 if own and answer.is_success else child.failed_checks + 1

    async def close(self) -> None:
        await self._client.aclose()
