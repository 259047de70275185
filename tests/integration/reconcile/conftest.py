"""The loop on a real SQLite file, a clock set by hand, and processes that do as a test says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import Session, col, select
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import DeploymentPhase, DeploymentView, LogLine, ReplicaPhase
from tidegate.spec import DeploymentSpec, Precision
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.replicas import (
    Exited,
    Missing,
    NoCapacity,
    Observation,
    Running,
)
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.shadow import Copier
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.provision.base import (
    FormerReplica,
    Holding,
    Launch,
    Notice,
    Provisioner,
    StartFailed,
)
from tidegate_controlplane.reconcile.loop import Reconciler
from tidegate_controlplane.settings import ReconcileSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import (
    DEFAULT_PROJECT,
    Deployment,
    Event,
    Project,
    Replica,
)

PROJECT = DEFAULT_PROJECT
P = ReplicaPhase
SETTINGS = ReconcileSettings(tick_s=30)


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    elapsed_s: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s


@dataclass
class Process:
    """One replica's process, as far as a provisioner can see it."""

    launch: Launch
    pid: int
    phase: ReplicaPhase = P.STARTING
    healthy: bool = True
    overdue: bool = False
    exited: Exited | NoCapacity | None = None

    def crash(self, message: str = "exited with status 1") -> None:
        self.exited = Exited(1, "Crashed", message)

    def find_no_capacity(self) -> None:
        self.exited = NoCapacity("it needs 2 GPUs, and no node has more than 1")

    def refuse(self, message: str) -> None:
        self.exited = Exited(3, "Refused", message, refused=True)


@dataclass
class ScriptedProvisioner(Provisioner):
    """Keeps the contract of `Provisioner`, with processes that are only written down."""

    endpoints: Endpoints
    processes: dict[str, Process] = field(default_factory=dict)
    """Those it holds something for."""
    ever: dict[str, Process] = field(default_factory=dict)
    on_start: Callable[[Process], None] = lambda _process: None
    """What becomes of the processes that are started from now on."""
    cannot_start: str | None = None
    stubborn: bool = False
    """A process that is asked to drain does not end."""
    offered_at_drain: dict[str, set[str]] = field(default_factory=dict)
    """The replicas that could be chosen at the moment at which one was asked to drain."""
    killed: list[str] = field(default_factory=list)
    kept_files: set[str] | None = None
    swept: list[FormerReplica] = field(default_factory=list)
    holds: dict[str, str | None] = field(default_factory=dict)
    """What is still held for a deployment, by the place; nothing elsewhere."""
    removals: list[Holding] = field(default_factory=list)
    news: list[Notice] = field(default_factory=list)
    where: str | None = None
    fail_at: int | None = None
    """The number of the call from now on that raises, counted from 0."""

    def _called(self) -> None:
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                self.fail_at = None
                raise RuntimeError("struck down")

    async def start(self, launch: Launch) -> None:
        self._called()
        if self.cannot_start:
            raise StartFailed(self.cannot_start)
        if launch.replica_id not in self.processes:
            process = Process(launch, pid=1000 + len(self.ever))
            self.processes[launch.replica_id] = self.ever[launch.replica_id] = process
            self.on_start(process)
        self._called()

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        self._called()
        return {replica_id: self._seen(replica_id) for replica_id in replica_ids}

    def _seen(self, replica_id: str) -> Observation:
        process = self.processes.get(replica_id)
        if process is None:
            return Missing()
        return process.exited or Running(
            process.phase,
            process.pid,
            77,
            8000,
            process.healthy,
            process.overdue,
            where=self.where,
        )

    def known(self) -> list[str]:
        self._called()
        return list(self.processes)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        self._called()
        return Endpoint(replica_id, f"http://{replica_id}", "token", 4)

    async def drain(self, replica_id: str) -> None:
        self._called()
        if process := self.processes.get(replica_id):
            offered = {
                endpoint.replica_id
                for deployment_id in self.endpoints._deployments
                for endpoint in self.endpoints.ready(deployment_id)
            }
            self.offered_at_drain.setdefault(replica_id, offered)
            process.phase = P.DRAINING
            if not self.stubborn:
                process.exited = process.exited or Exited(0, "Ended", "drained")

    async def kill(self, replica_id: str) -> None:
        self._called()
        if process := self.processes.get(replica_id):
            self.killed.append(replica_id)
            process.exited = process.exited or Exited(-9, "Crashed", "killed by signal 9")

    async def forget(self, replica_id: str) -> None:
        self._called()
        if replica_id in self.processes and self.processes[replica_id].exited:
            del self.processes[replica_id]

    async def remove(self, holding: Holding) -> str | None:
        self._called()
        self.removals.append(holding)
        return self.holds.get(holding.provisioner)

    def notices(self) -> list[Notice]:
        self._called()
        taken, self.news = self.news, []
        return taken

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        self._called()
        self.kept_files = set(replica_ids)

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        self.swept += former

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        return []

    async def close(self) -> None:
        self.processes.clear()


def becomes_ready(process: Process) -> None:
    process.phase = P.READY


@dataclass
class World:
    """A control plane without its doors."""

    database: Database
    clock: HandClock
    model: Path
    memory_bytes: int = 16 * 1024**3
    """Of the machine."""
    trials: Trials = field(init=False)
    endpoints: Endpoints = field(init=False)
    provisioner: ScriptedProvisioner = field(init=False)
    deployments: Deployments = field(init=False)
    reconciler: Reconciler = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new control plane on the same file: whatever was in memory is lost."""
        self.endpoints = Endpoints(self.clock, hold_queue=10)
        self.trials = Trials(self.clock, Copier(httpx.AsyncClient()))
        self.provisioner = ScriptedProvisioner(self.endpoints)
        capabilities = Capabilities(
            provisioners=frozenset({"local", "ray"}),
            precisions=frozenset({Precision.BF16, Precision.FP32}),
            memory_bytes=self.memory_bytes,
            cores=4,
        )
        self.deployments = Deployments(
            self.database,
            Planner(self.database, capabilities),
            Catalog(),
            self.endpoints,
            self.provisioner,
            self.clock,
        )
        self.metrics = Metrics()
        self.reconciler = Reconciler(
            self.database,
            self.provisioner,
            self.endpoints,
            self.deployments.bell,
            self.clock,
            SETTINGS,
            trials=self.trials,
            memory_bytes=self.memory_bytes,
            metrics=self.metrics,
        )

    async def declare(
        self, name: str = "smol", mode: str = "serverless", **parts: Any
    ) -> DeploymentView:
        spec = {"name": name, "model": str(self.model), "mode": mode, **parts}
        view, _ = await self.deployments.apply(PROJECT, DeploymentSpec.model_validate(spec))
        return view

    async def turn(self, passes: int = 1, seconds: float = 0.0) -> None:
        """Passes of the loop, each after the clock has gone on."""
        for _ in range(passes):
            self.clock.elapsed_s += seconds
            await self.reconciler.reconcile()

    async def view(self, name: str = "smol") -> DeploymentView:
        return await self.deployments.read.get(PROJECT, name)

    async def phase(self, name: str = "smol") -> DeploymentPhase:
        return (await self.view(name)).phase

    async def rows(self) -> list[Replica]:
        return await self.database.read(
            lambda s: list(s.exec(select(Replica).order_by(Replica.id)))
        )

    async def phases(self) -> list[str]:
        return [row.phase for row in await self.rows()]

    async def deployment_row(self, key: str) -> Deployment:
        return await self.database.read(lambda s: s.get_one(Deployment, key))

    async def events(self) -> list[tuple[str, str]]:
        """Reason and sentence of every event."""
        query = select(Event).order_by(col(Event.seq))
        found = await self.database.read(lambda s: list(s.exec(query)))
        return [(event.reason, event.message) for event in found]

    @property
    def running(self) -> list[Process]:
        """Processes that live."""
        return [p for p in self.provisioner.ever.values() if p.exited is None]

    @asynccontextmanager
    async def held(self, deployment_id: str) -> AsyncIterator[asyncio.Task[Endpoint]]:
        """A request that waits for a replica; its task ends with the one that it got."""

        async def ask() -> Endpoint:
            async with asyncio.timeout(60), self.endpoints.acquire(deployment_id, 1e9) as found:
                return found

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with this version's tables and one project."""
    path = tmp_path_factory.mktemp("migrated") / "tidegate.db"
    database = SqliteDatabase(path)
    migrate(database.writer)
    with Session(database.writer) as session, session.begin():
        session.add(Project(id=PROJECT, name="default", created_at=HandClock().now()))
    database.close()
    return path


@pytest.fixture
async def world(tmp_path: Path, migrated: Path, model: Path) -> AsyncIterator[World]:
    shutil.copy(migrated, tmp_path / "tidegate.db")
    database = SqliteDatabase(tmp_path / "tidegate.db")
    yield World(database, HandClock(), model)
    database.close()
