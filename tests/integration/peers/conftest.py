"""Control planes that share a PostgreSQL database, with replicas that start in a moment."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.app import Services
from tidegate_controlplane.connection import connect
from tidegate_controlplane.process import running
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.settings import PeerSettings, ReconcileSettings, Settings, WorkSettings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT
from tidegate_controlplane.work.invocations import Terms
from tidegate_controlplane.work.service import Work

REPLICA = (sys.executable, str(Path(__file__).with_name("replica.py")))
PEPPER = bytes(range(32))
PEERS = PeerSettings(lease_s=1.5, beat_s=0.1, poll_s=0.05, stale_s=1.0)
PRINCIPAL = Principal("key_1", DEFAULT_PROJECT, "one", KeyRole.ADMIN, None, None)
WITHIN_S = 60


@dataclass
class Plane:
    """One of them."""

    services: Services
    work: Work

    @property
    def leads(self) -> bool:
        return self.work.leads()

    async def declare(self, model: Path, name: str = "smol", **parts: Any) -> None:
        spec = {"name": name, "model": str(model), "mode": "serverless", **parts}
        await self.services.deployments.apply(DEFAULT_PROJECT, DeploymentSpec.model_validate(spec))

    async def ask(self, prompt: str, name: str = "smol") -> str:
        """What a replica answers, held for as long as it takes to have one."""
        services = self.services
        served = services.catalog.get(DEFAULT_PROJECT, name)
        assert served is not None
        body = json.dumps({"model": name, "prompt": prompt}).encode()
        deadline = services.clock.monotonic() + WITHIN_S
        answer = await services.forwarder.call(
            served, "/v1/completions", body, deadline=deadline, request_id="req", run_s=WITHIN_S
        )
        return json.loads(answer.body)["text"]

    async def submit(self, prompt: str, name: str = "smol") -> str:
        body = json.dumps({"model": name, "prompt": prompt}).encode()
        made, _ = await self.services.invocations.submit(PRINCIPAL, body, Terms())
        return made.id

    async def make_key(self) -> tuple[str, str]:
        """Id and secret."""
        request = ApiKeyRequest(name="another")
        made = await self.services.keys.create(DEFAULT_PROJECT, request)
        return made.id, made.key


@dataclass
class Platform:
    """Every control plane of one database."""

    database: str
    directory: Path
    model: Path
    stack: AsyncExitStack

    def settings(self, name: str, **changes: Any) -> Settings:
        data_dir = self.directory / name
        data_dir.mkdir(exist_ok=True)
        (data_dir / "pepper").write_bytes(PEPPER)
        values: dict[str, Any] = {
            "data_dir": data_dir,
            "database": self.database,
            "objects": str(self.directory / "objects"),
            "port": 0,
            "peers": PEERS,
            "shutdown_s": 2.0,
            "work": WorkSettings(lease_s=2.0, heartbeat_s=0.2, poll_s=0.05),
            "reconcile": ReconcileSettings(tick_s=0.2, health_interval_s=0.2),
        }
        return Settings(**(values | changes))

    async def plane(self, name: str, stack: AsyncExitStack | None = None, **changes: Any) -> Plane:
        """One more, until the end of `stack`."""
        one = running(self.settings(name, **changes), SpawningStarter(REPLICA))
        services, work = await (stack or self.stack).enter_async_context(one)
        await connect(services, "http://nowhere")
        return Plane(services, work)


@pytest.fixture
async def platform(postgres: Any, tmp_path: Path) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        model = write_tiny_model(tmp_path / "model")
        yield Platform(postgres.database(), tmp_path, model, stack)


@pytest.fixture
async def two(platform: Platform) -> tuple[Plane, Plane]:
    """The leader, and a follower."""
    leader = await platform.plane("one")
    follower = await platform.plane("two")
    assert (leader.leads, follower.leads) == (True, False)
    return leader, follower


async def until(holds: Callable[[], bool | Awaitable[bool]], within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)
