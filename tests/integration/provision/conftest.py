"""A provisioner of real child processes that start in a moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tidegate.protocol.resources import ReplicaPhase, ResolvedPlan
from tidegate.spec import Mode
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.domain.replicas import Exited, Observation, Running
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.local import LocalProvisioner
from tidegate_controlplane.provision.start import SpawningStarter, Starter
from tidegate_controlplane.settings import ReconcileSettings

COMMAND = (sys.executable, str(Path(__file__).with_name("replica.py")))
SETTINGS = ReconcileSettings(health_interval_s=0.02, health_timeout_s=2.0, start_timeout_s=30)


def launch(behaviour: str = "good", key: str = "rep_1", drain_timeout_s: float = 5.0) -> Launch:
    """What starts a replica that behaves so."""
    plan = ResolvedPlan(
        provisioner="local",
        precision="fp32",
        context_tokens=128,
        max_sequences=3,
        kv_cache_bytes=1024,
        weights_bytes=1,
        memory_bytes=1,
        threads=2,
        min_replicas=0,
        max_replicas=1,
        target_in_flight=1,
        idle_timeout_s=1,
        drain_timeout_s=drain_timeout_s,
    )
    digest = "sha256:d" if behaviour == "good" else f"sha256:{behaviour}"
    return Launch(
        replica_id=key,
        deployment_id="dep_1",
        revision_id="rev_1",
        mode=Mode.SERVERLESS,
        model_name="smol",
        source=behaviour,
        task="generate",
        revision="abc123",
        digest=digest,
        plan=plan,
    )


@dataclass
class Nursery:
    """The provisioner, and ways to wait for what its children do."""

    provisioner: LocalProvisioner
    directory: Path

    async def seen(self, key: str = "rep_1") -> Observation:
        return (await self.provisioner.observe([key]))[key]

    async def until(
        self, holds: Callable[[Observation], bool], key: str = "rep_1", within_s: float = 15
    ) -> Observation:
        async with asyncio.timeout(within_s):
            while not holds(seen := await self.seen(key)):
                await asyncio.sleep(0.01)
            return seen

    async def ready(self, key: str = "rep_1") -> Running:
        seen = await self.until(lambda s: isinstance(s, Exited) or _is_ready(s), key)
        assert isinstance(seen, Running), seen
        return seen

    async def exited(self, key: str = "rep_1") -> Exited:
        seen = await self.until(lambda s: isinstance(s, Exited), key)
        assert isinstance(seen, Exited)
        return seen


def _is_ready(seen: Observation) -> bool:
    return isinstance(seen, Running) and seen.phase is ReplicaPhase.READY


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    directory = tmp_path / "replicas"
    provisioner = a_provisioner(directory)
    yield Nursery(provisioner, directory)
    await provisioner.close()


def a_provisioner(
    directory: Path,
    starter: Starter | None = None,
    settings: ReconcileSettings = SETTINGS,
    changed: asyncio.Event | None = None,
) -> LocalProvisioner:
    """One of replicas that start in a moment."""
    return LocalProvisioner(
        directory,
        directory.parent / "cache",
        settings,
        SystemClock(),
        starter or SpawningStarter(COMMAND),
        changed,
    )
