"""Whether this process gets through to replicas on other machines, as its gateway will."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from tidegate.protocol.replica import ReplicaReady
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.settings import ReconcileSettings


@dataclass
class _Path:
    checked_at: float
    check: asyncio.Task[bool]
    answered: bool = False
    failures: int = 0
    """In a row."""


class Reach:
    """Asks replicas how they are, in the background; its answers are those of the last check."""

    def __init__(self, settings: ReconcileSettings, clock: Clock, changed: asyncio.Event) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._paths: dict[str, _Path] = {}
        self._http = httpx.AsyncClient(timeout=settings.health_timeout_s, trust_env=False)

    def check(self, replica_id: str, url: str) -> None:
        """Begin a check in the background when one is due."""
        now = self._clock.monotonic()
        path = self._paths.get(replica_id)
        if path is None:
            check = asyncio.create_task(self.answers(replica_id, url))
            self._paths[replica_id] = _Path(now, check)
        elif path.check.done() and now - path.checked_at >= self._settings.health_interval_s:
            path.checked_at = now
            path.check = asyncio.create_task(self.answers(replica_id, url))

    def has_answered(self, replica_id: str) -> bool:
        """Whether it was ever reached."""
        path = self._paths.get(replica_id)
        return path is not None and path.answered

    def is_cut_off(self, replica_id: str) -> bool:
        """Whether so many checks failed in a row that it is to be replaced."""
        path = self._paths.get(replica_id)
        return path is not None and path.failures >= self._settings.health_failures

    def forget(self, replica_id: str) -> None:
        if path := self._paths.pop(replica_id, None):
            path.check.cancel()

    async def close(self) -> None:
        checks = [path.check for path in self._paths.values()]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        self._paths.clear()
        await self._http.aclose()

    async def answers(self, replica_id: str, url: str) -> bool:
        """Ask now."""
        try:
            answer = await self._http.get(url + "/readyz")
            own = ReplicaReady.model_validate_json(answer.content).replica_id == replica_id
        except (httpx.HTTPError, ValueError):
            own = False
        if path := self._paths.get(replica_id):
            before = path.answered, self.is_cut_off(replica_id)
            path.answered = path.answered or own
            path.failures = 0 if own else path.failures + 1
            if before != (path.answered, self.is_cut_off(replica_id)):
                self._changed.set()
        return own
