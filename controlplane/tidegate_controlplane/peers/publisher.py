"""What the leader's table of endpoints says, written for the others and read by them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.publication import Publication
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.planes import publish, published


class Publisher:
    """The leader's side, for one term: it begins with nothing published."""

    def __init__(self, database: Database, endpoints: Endpoints, epoch: int) -> None:
        self._database = database
        self._endpoints = endpoints
        self._epoch = epoch
        self._written: dict[str, Publication] = {}

    def changed(self) -> dict[str, Publication | None]:
        """What is to be written; None for what is to be withdrawn."""
        now = self._endpoints.publications()
        gone: dict[str, Publication | None] = dict.fromkeys(self._written.keys() - now.keys())
        return gone | {k: v for k, v in now.items() if self._written.get(k) != v}

    async def write(self) -> bool:
        """Write what has changed; whether anything had. Raises Deposed."""
        changed = self.changed()
        if not changed:
            return False
        said = {k: v.model_dump(mode="json") if v else None for k, v in changed.items()}
        await self._database.write(lambda session: publish(session, self._epoch, said))
        self._written |= {k: v for k, v in changed.items() if v}
        self._written = {k: v for k, v in self._written.items() if changed.get(k, v) is not None}
        return True


class Subscriber:
    """The others' side: this process's table says what the leader's does."""

    def __init__(
        self, database: Database, endpoints: Endpoints, token_of: Callable[[str], str]
    ) -> None:
        self._database = database
        self._endpoints = endpoints
        self._token_of = token_of
        self._known: set[str] = set()

    async def read(self, living: Collection[str]) -> None:
        """Take over what is published; `living` are the ids of deployments that are not deleted."""
        found = await self._database.read(published)
        for deployment_id in self._known - found.keys():
            if deployment_id in living:
                self._endpoints.publish(deployment_id, [])
            else:
                self._endpoints.forget(deployment_id)
        self._known = set(found)
        for deployment_id, content in found.items():
            said = Publication.model_validate(content)
            self._endpoints.publish(
                deployment_id,
                said.endpoints_with(self._token_of),
                weights=said.weights,
                hopeless=said.hopeless.refusal if said.hopeless else None,
                cold_start_s=said.cold_start_s,
            )
