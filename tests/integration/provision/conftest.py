"""A provisioner of real child processes that start in a moment; and what the suite has shown."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import pytest
from tests.integration.provision.launch import COMMAND, launch
from tests.integration.provision.place import Place
from tests.integration.provision.shown import Shown

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision import start
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.provision.local import LocalProvisioner
from tidegate_controlplane.provision.start import SpawningStarter, Starter
from tidegate_controlplane.settings import ReconcileSettings

__all__ = ["COMMAND", "SETTINGS", "Nursery", "a_provisioner", "launch"]
SETTINGS = ReconcileSettings(health_interval_s=0.02, health_timeout_s=10.0, start_timeout_s=60)


@dataclass
class Nursery(Place):
    """Child processes of this one."""

    directory: Path
    abandoned: list[Provisioner] = field(default_factory=list)
    name: ClassVar[str] = "local"
    stands_on: ClassVar[str] = "child processes of this machine"

    async def crash(self) -> None:
        self.abandoned.append(self.provisioner)
        self.provisioner = a_provisioner(self.directory)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """The kernel says that there are too many processes, as it does for anybody but root."""
        refusal = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        with patch.object(start.os, "posix_spawn", side_effect=refusal):
            yield

    async def close(self) -> None:
        for provisioner in (self.provisioner, *self.abandoned):
            await provisioner.close()


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    directory = tmp_path / "replicas"
    made = Nursery(a_provisioner(directory), directory)
    yield made
    await made.close()


def a_provisioner(
    directory: Path,
    starter: Starter | None = None,
    settings: ReconcileSettings = SETTINGS,
    changed: asyncio.Event | None = None,
    gpu_starter: Starter | None = None,
) -> LocalProvisioner:
    """One of replicas that start in a moment."""
    return LocalProvisioner(
        directory,
        directory.parent / "cache",
        settings,
        SystemClock(),
        starter or SpawningStarter(COMMAND),
        changed,
        gpu_starter=gpu_starter,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Shown(config), "provisioners shown")
