"""Which deployments can be named in a request: the living ones, by project and name.

The catalog is kept in memory: loaded at start, changed after each commit of this process that
changes it, and loaded again when another control plane made such a commit. A request never waits
for the database to find its deployment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from tidegate.spec import Mode, Task

ADAPTER_MARK = ":"
"""Between a deployment's name and its adapter's; no name has it."""


@dataclass(frozen=True)
class Adapter:
    """One of a deployment's declared adapters."""

    name: str
    source: str


@dataclass(frozen=True)
class Served:
    """What the data plane needs to know of a deployment, and of the adapter that is asked for."""

    deployment_id: str
    project_id: str
    name: str
    mode: Mode
    task: Task
    created_at: datetime
    adapters: tuple[Adapter, ...] = ()
    adapter: Adapter | None = None

    def model(self, name: str) -> Served | None:
        """As which it serves the model `name`: its own, or `name:adapter` of an adapter it has."""
        if name == self.name:
            return self
        for adapter in self.adapters:
            if name == self.model_of(adapter):
                return replace(self, adapter=adapter)
        return None

    @property
    def asked_model(self) -> str:
        """What the request that found it calls it."""
        return self.name if self.adapter is None else self.model_of(self.adapter)

    def model_of(self, adapter: Adapter) -> str:
        """What requests call an adapter."""
        return f"{self.name}{ADAPTER_MARK}{adapter.name}"


class Catalog:
    """Living deployments by (project, name)."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str], Served] = {}
        self.changes = 0
        """Made here so far, so that whoever loads it sees whether what was read is out of date."""

    def put(self, served: Served) -> None:
        self.changes += 1
        self._served[served.project_id, served.name] = served

    def remove(self, project_id: str, name: str) -> None:
        self.changes += 1
        self._served.pop((project_id, name), None)

    def replace(self, found: Iterable[Served]) -> None:
        """Hold these and no others."""
        self._served = {(served.project_id, served.name): served for served in found}

    def get(self, project_id: str, name: str) -> Served | None:
        return self._served.get((project_id, name))

    def by_id(self, deployment_id: str) -> Served | None:
        return next((s for s in self._served.values() if s.deployment_id == deployment_id), None)

    def all(self) -> list[Served]:
        """In any order."""
        return list(self._served.values())

    def of_project(self, project_id: str) -> list[Served]:
        """Sorted by name."""
        found = [s for (project, _), s in self._served.items() if project == project_id]
        return sorted(found, key=lambda served: served.name)
