"""A Ray cluster of several nodes on this machine, each with a directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.provision.conftest import COMMAND

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision.ray.agent import DIRECTORY_VARIABLE, Orders
from tidegate_controlplane.provision.ray.provisioner import RayProvisioner
from tidegate_controlplane.settings import RaySettings, ReconcileSettings

QUIET = {"include_dashboard": False, "object_store_memory": 150 * 2**20}
SETTINGS = ReconcileSettings(health_interval_s=0.1, health_timeout_s=2.0, start_timeout_s=60)


@dataclass
class Machines:
    """The nodes of a cluster, by name; the head has no CPU, so that nothing runs there."""

    root: Path
    cluster: Any
    named: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, **resources: Any) -> None:
        """Another node; its files are under `directory(name)`."""
        self.named[name] = self.cluster.add_node(
            env_vars={DIRECTORY_VARIABLE: str(self.directory(name))},
            **{"num_cpus": 2, "memory": 2**30, **QUIET, **resources},
        )

    def lose(self, name: str) -> None:
        """Kill a node as a power cut would: nothing is asked, nothing is cleaned up."""
        self.cluster.remove_node(self.named.pop(name), allow_graceful=False)

    def directory(self, name: str) -> Path:
        return self.root / name

    def name_of(self, replica_id: str) -> str:
        """The node that a replica ran on last."""
        return next(
            name for name in self.named if (self.directory(name) / "replicas" / replica_id).is_dir()
        )


@contextlib.contextmanager
def machines(root: Path) -> Iterator[Machines]:
    """A cluster without any node to run on; the caller adds some."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
    try:
        yield Machines(root, cluster)
    finally:
        cluster.shutdown()


@contextlib.asynccontextmanager
async def a_place(
    made: Machines, changed: asyncio.Event | None = None, **settings: Any
) -> AsyncIterator[RayProvisioner]:
    """A provisioner of played replicas on the nodes of a cluster."""
    chosen = RaySettings(address=made.cluster.address, **{"capacity_wait_s": 5.0, **settings})
    orders = Orders(
        directory=made.root / "nowhere",
        settings=SETTINGS,
        telemetry=Telemetry(),
        command=COMMAND,
    )
    provisioner = RayProvisioner(
        chosen,
        orders,
        SystemClock(),
        changed or asyncio.Event(),
        "token-of-{}".format,
    )
    await provisioner.open()
    try:
        yield provisioner
    finally:
        await provisioner.close()
