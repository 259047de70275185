"""The service on a real SQLite file and a real, tiny model; replicas are only remembered logs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import DeploymentView, LogLine
from tidegate.spec import DeploymentSpec, Precision
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.replicas import Observation
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.provision.base import FormerReplica, Launch, Provisioner
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, Deployment, Project, Replica

PROJECT = DEFAULT_PROJECT
MakeSpec = Callable[..., DeploymentSpec]


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    elapsed_s: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s


@dataclass
class LogsOnly(Provisioner):
    """A provisioner that runs nothing: it answers from logs that a test wrote."""

    written: dict[str, list[str]] = field(default_factory=dict)

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        lines = self.written.get(replica_id, [])[offset : offset + limit]
        return [
            LogLine(replica=replica_id, offset=number, text=text)
            for number, text in enumerate(lines, offset + 1)
        ]

    async def start(self, launch: Launch) -> None: ...
    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {}

    def known(self) -> list[str]:
        return []

    def endpoint(self, replica_id: str) -> Endpoint | None:
        return None

    async def drain(self, replica_id: str) -> None: ...
    async def kill(self, replica_id: str) -> None: ...
    async def forget(self, replica_id: str) -> None: ...
    async def keep_files(self, replica_ids: Collection[str]) -> None: ...
    async def sweep(self, former: Sequence[FormerReplica]) -> None: ...
    async def close(self) -> None: ...


@dataclass
class Room:
    """The service and what a test looks at beside it."""

    deployments: Deployments
    database: Database
    catalog: Catalog
    endpoints: Endpoints
    logs: LogsOnly
    clock: HandClock

    async def add_replica(self, deployment: DeploymentView, key: str, **values: Any) -> None:
        """A row as the reconciler would write it."""
        now = self.clock.now()

        def insert(session: Session) -> None:
            row = session.get_one(Deployment, deployment.id)
            session.add(
                Replica(
                    id=key,
                    deployment_id=row.id,
                    revision_id=row.revision_id,
                    created_at=now,
                    updated_at=now,
                    **{"phase": "ready"} | values,
                )
            )

        await self.database.write(insert)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture
def spec(model: Path) -> MakeSpec:
    """Makes a declaration of the tiny model."""

    def make(name: str = "smol", mode: str = "serverless", **parts: Any) -> DeploymentSpec:
        return DeploymentSpec.model_validate(
            {"name": name, "model": str(model), "mode": mode, **parts}
        )

    return make


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    clock, catalog, logs = HandClock(), Catalog(), LogsOnly()
    endpoints = Endpoints(clock, hold_queue=10)
    database = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(database.writer)
    with Session(database.writer) as session, session.begin():
        for project in (PROJECT, "prj_other"):
            session.add(Project(id=project, name=project, created_at=clock.now()))
    capabilities = Capabilities(
        provisioners=frozenset({"local"}),
        precisions=frozenset({Precision.BF16, Precision.FP32}),
        memory_bytes=16 * 1024**3,
        cores=4,
    )
    planner = Planner(database, capabilities)
    service = Deployments(database, planner, catalog, endpoints, logs, clock)
    yield Room(service, database, catalog, endpoints, logs, clock)
    database.close()
