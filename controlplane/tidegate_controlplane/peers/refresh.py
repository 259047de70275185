"""Bringing what this process keeps in memory up to what other control planes committed."""

from __future__ import annotations

from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.planes import DEPLOYMENTS, KEYS, View, finished_among
from tidegate_controlplane.work.notices import Notices


class Refresh:
    """The catalog, the API keys in use, and those who wait for an event or a result."""

    def __init__(
        self,
        database: Database,
        deployments: Deployments,
        keys: KeyService,
        endpoints: Endpoints,
        notices: Notices,
    ) -> None:
        self._database = database
        self._deployments = deployments
        self._keys = keys
        self._endpoints = endpoints
        self._notices = notices
        self._seen: dict[str, int] = {}
        self._newest_event = 0

    async def see(self, view: View) -> None:
        if self._has_moved(view, DEPLOYMENTS):
            await self._deployments.load_catalog()
            self._endpoints.wanted.set()
        if self._has_moved(view, KEYS):
            self._keys.forget()
        self._seen = dict(view.counters)
        if view.newest_event != self._newest_event:
            self._newest_event = view.newest_event
            self._deployments.bell.ring_all()
        if waiting := self._notices.waited_for():
            finished = await self._database.read(lambda s: finished_among(s, waiting))
            self._notices.changed(finished)

    def _has_moved(self, view: View, counter: str) -> bool:
        return self._seen.get(counter) != view.counters[counter]
