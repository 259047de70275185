"""The real gateway, loop and store over replicas that say in each chunk which revision they are."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.conftest import DONE, USAGE, Replica, Script, chunk, serve
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import ApiKeyRequest, KeyRole, LogLine, ReplicaPhase, RolloutView
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.api import deployments as deployment_routes
from tidegate_controlplane.api import rollouts as rollout_routes
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.domain.replicas import Exited, Missing, Observation, Running
from tidegate_controlplane.gateway import routes
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.forward import Forwarder
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.shadow import Copier
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.machine import capabilities
from tidegate_controlplane.provision.base import FormerReplica, Launch, Provisioner
from tidegate_controlplane.reconcile.loop import Reconciler
from tidegate_controlplane.settings import ReconcileSettings, Settings
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

CHUNKS = 4
GAP_S = 0.1
START_S = 0.1
HANDLERS = [*routes.HANDLERS, *deployment_routes.HANDLERS, *rollout_routes.HANDLERS]
SETTINGS = ReconcileSettings(tick_s=0.05, busy_tick_s=0.02)


@dataclass
class Server:
    """A replica's process: a real HTTP server."""

    replica: Replica
    stack: AsyncExitStack
    ready_at: float
    gone: bool = False
    cut: int = 0
    """Requests that ran when it ended."""


@dataclass
class ServingProvisioner(Provisioner):
    """Keeps the contract of `Provisioner`; a replica of n sequences answers `n` in each chunk."""

    servers: dict[str, Server] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)
    """Revisions, by their sequences, that answer every request with status 500."""

    async def start(self, launch: Launch) -> None:
        if launch.replica_id in self.servers:
            return
        sequences = launch.plan.max_sequences
        script = Script.error(500) if sequences in self.broken else _speaking(str(sequences))
        stack = AsyncExitStack()
        replica = await stack.enter_async_context(Replica(launch.replica_id, script).listening())
        ready_at = asyncio.get_running_loop().time() + START_S
        self.servers[launch.replica_id] = Server(replica, stack, ready_at)

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {replica_id: self._seen(replica_id) for replica_id in replica_ids}

    def _seen(self, replica_id: str) -> Observation:
        server = self.servers.get(replica_id)
        if server is None:
            return Missing()
        if server.gone:
            return Exited(0, "Ended", "drained")
        is_up = asyncio.get_running_loop().time() >= server.ready_at
        return Running(ReplicaPhase.READY if is_up else ReplicaPhase.STARTING, 1, 1, 1)

    def known(self) -> list[str]:
        return list(self.servers)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        replica = self.servers[replica_id].replica
        return Endpoint(replica_id, replica.url, replica.token, capacity=16)

    def asked(self, sequences: int) -> int:
        """How many requests the replicas of that revision were ever sent."""
        begins = chunk(f"{sequences} ")
        return sum(
            len(server.replica.asked)
            for server in self.servers.values()
            if begins in server.replica.script.parts
        )

    async def drain(self, replica_id: str) -> None:
        await self.kill(replica_id)

    async def kill(self, replica_id: str) -> None:
        server = self.servers[replica_id]
        if not server.gone:
            server.gone, server.cut = True, server.replica.running
            await server.stack.aclose()

    async def forget(self, replica_id: str) -> None: ...
    async def keep_files(self, replica_ids: Collection[str]) -> None: ...
    async def sweep(self, former: Sequence[FormerReplica]) -> None: ...
    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        return []

    async def close(self) -> None:
        for replica_id in self.servers:
            await self.kill(replica_id)


def _speaking(text: str) -> Script:
    parts: list[Any] = []
    for _ in range(CHUNKS):
        parts += [chunk(f"{text} "), GAP_S]
    return Script.stream(*parts, USAGE, DONE)


@dataclass
class Load:
    """What became of the streams: whole ones by the revisions that spoke in them, and the rest."""

    whole: Counter[tuple[str, ...]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Stage:
    """A platform whose deployment `smol` runs, and who asks it."""

    url: str
    key: str
    model: Path
    deployments: Deployments
    provisioner: ServingProvisioner
    load: Load = field(default_factory=Load)

    async def declare(self, sequences: int, **parts: Any) -> None:
        spec = {
            "name": "smol",
            "model": str(self.model),
            "mode": "realtime",
            "runtime": {"max_sequences": sequences},
            "scaling": {"min_replicas": 2},
            **parts,
        }
        await self.deployments.apply(DEFAULT_PROJECT, DeploymentSpec.model_validate(spec))

    async def rollout(self) -> RolloutView:
        return await self.deployments.rollouts.newest(DEFAULT_PROJECT, "smol")

    async def until_phase(self, *phases: str) -> RolloutView:
        async with asyncio.timeout(60):
            while (view := await self.rollout()).phase not in phases:
                await asyncio.sleep(0.02)
        return view

    async def until_settled(self) -> None:
        """The declared revision serves, or was given up, and every other replica has ended."""
        async with asyncio.timeout(60):
            while True:
                view = await self.deployments.read.get(DEFAULT_PROJECT, "smol")
                counts = view.replicas
                if view.phase == "ready" and not counts.draining and not counts.starting:
                    return
                await asyncio.sleep(0.02)

    async def until_asked(self, sequences: int) -> None:
        """A replica of that revision answers a stream."""
        async with asyncio.timeout(60):
            while not self.provisioner.asked(sequences):
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def asked_by(self, number: int) -> AsyncIterator[Load]:
        """So many callers, each with one stream after the other; all end whole before the exit."""
        stop = asyncio.Event()
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client:
            callers = [asyncio.create_task(self._ask(client, stop)) for _ in range(number)]
            try:
                yield self.load
            finally:
                stop.set()
                async with asyncio.timeout(60):
                    await asyncio.gather(*callers)

    async def _ask(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._stream(client)

    async def _stream(self, client: httpx.AsyncClient) -> None:
        body = {"model": "smol", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        try:
            answer = await client.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.load.faults.append(repr(error))
            return
        words = _words(answer.text)
        if answer.status_code != 200 or len(words) != CHUNKS or "[DONE]" not in answer.text:
            self.load.faults.append(f"{answer.status_code} {answer.text[-300:]}")
        else:
            self.load.whole[tuple(sorted(set(words)))] += 1


def _words(stream: str) -> list[str]:
    events = [line[5:] for line in stream.splitlines() if line.startswith("data: {")]
    deltas = [choice for text in events for choice in json.loads(text).get("choices", [])]
    return "".join(choice["delta"]["content"] for choice in deltas).split()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture
async def stage(tmp_path: Path, migrated: Path, model: Path) -> AsyncIterator[Stage]:
    settings, clock = Settings(data_dir=tmp_path), SystemClock()
    shutil.copy(migrated, settings.database_path)
    async with AsyncExitStack() as stack:
        database = SqliteDatabase(settings.database_path)
        stack.callback(database.close)
        client = await stack.enter_async_context(ReplicaClient())
        copier = Copier(client)
        stack.push_async_callback(copier.close)
        endpoints, trials = Endpoints(clock, hold_queue=1000), Trials(clock, copier)
        provisioner, catalog = ServingProvisioner(), Catalog()
        stack.push_async_callback(provisioner.close)
        keys = KeyService(database, load_pepper(settings.pepper_path), clock)
        await keys.ensure_first()
        unlimited = ApiKeyRequest(
            name="x", role=KeyRole.ADMIN, requests_per_minute=None, tokens_per_minute=None
        )
        machine, watch = capabilities(), Watch(Metrics(), clock)
        deployments = Deployments(
            database, Planner(database, machine), catalog, endpoints, provisioner, clock
        )
        reconciler = Reconciler(
            database,
            provisioner,
            endpoints,
            deployments.bell,
            clock,
            SETTINGS,
            trials=trials,
            memory_bytes=machine.memory_bytes,
            metrics=watch.metrics,
        )
        looping = asyncio.create_task(reconciler.run())
        stack.callback(looping.cancel)
        missing: Any = None
        services = Services(
            settings=settings,
            clock=clock,
            database=database,
            endpoints=endpoints,
            catalog=catalog,
            keys=keys,
            quotas=Quotas(clock),
            usage=UsageBook(database, clock),
            watch=watch,
            forwarder=Forwarder(endpoints, client, clock, trials, watch),
            profiler=missing,
            deployments=deployments,
            offers=missing,
            files=missing,
            batches=missing,
            invocations=missing,
            webhooks=missing,
            rotation=missing,
            ready=asyncio.Event(),
        )
        key = (await keys.create(DEFAULT_PROJECT, unlimited)).key
        url = await stack.enter_async_context(serve(build_app(services, HANDLERS)))
        yield Stage(url, key, model, deployments, provisioner)
