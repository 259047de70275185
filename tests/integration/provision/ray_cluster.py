"""A Ray cluster of several nodes on this machine, each with a directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tests.integration.provision.launch import COMMAND
from tests.integration.provision.place import Place

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision.base import Launch
from tidegate_controlplane.provision.ray.agent import DIRECTORY_VARIABLE, Orders
from tidegate_controlplane.provision.ray.provisioner import RayProvisioner
from tidegate_controlplane.settings import RaySettings, ReconcileSettings

QUIET = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
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
        """Kill Ray on a node: nothing is asked, nothing is cleaned up."""
        self.cluster.remove_node(self.named.pop(name), allow_graceful=False)

    def directory(self, name: str) -> Path:
        return self.root / name

    def home(self, replica_id: str) -> str:
        """The living node that a replica was started on."""
        return next(
            name for name in self.named if (self.directory(name) / "replicas" / replica_id).is_dir()
        )


@contextlib.contextmanager
def machines(root: Path, *names: str, **resources: Any) -> Iterator[Machines]:
    """A cluster of nodes that are all alike."""
    from ray.cluster_utils import Cluster

    made = Machines(root, Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET}))
    try:
        for name in names:
            made.add(name, **resources)
        yield made
    finally:
        made.cluster.shutdown()


async def opened(
    made: Machines, changed: asyncio.Event | None = None, **settings: Any
) -> RayProvisioner:
    """A provisioner of played replicas on the nodes of a cluster."""
    chosen = RaySettings(address=made.cluster.address, **{"capacity_wait_s": 15.0, **settings})
    provisioner = RayProvisioner(
        chosen,
        orders(made),
        SystemClock(),
        changed or asyncio.Event(),
        lambda _: secrets.token_urlsafe(32),
    )
    await provisioner.open()
    return provisioner


def orders(made: Machines) -> Orders:
    """Played replicas; a node without a directory of its own would show."""
    return Orders(made.root / "nowhere", SETTINGS, Telemetry(), command=COMMAND)


@dataclass
class RayPlace(Place):
    """The nodes of a cluster, and the provisioner that uses them."""

    provisioner: RayProvisioner
    machines: Machines
    name: ClassVar[str] = "ray"
    stands_on: ClassVar[str] = "a Ray cluster of two nodes on this machine"
    patience_s: ClassVar[float] = 60.0

    def launch(self, behaviour: str = "good", key: str = "rep_1") -> Launch:
        """One that reads nothing: what is copied to a node has tests of its own."""
        made = super().launch(behaviour, key)
        return replace(made, source=f"hf://played/{behaviour}", task="embed")

    async def served_with(self, launch: Launch) -> None:
        """It is ready."""
        await self.provisioner.start(launch)
        await self.ready(launch.replica_id)

    async def crash(self) -> None:
        """Ray sees the same when a driver disconnects as when it dies."""
        struck = self.provisioner
        tasks = [struck._nodes._refreshing, *(node._watching for node in struck._nodes)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await struck._reach.close()
        await struck._connection.close()
        self.provisioner = await opened(self.machines)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Somebody else has every CPU."""
        from ray.util import placement_group, remove_placement_group

        taken = placement_group([{"CPU": 2}] * len(self.machines.named), "STRICT_SPREAD")
        assert await asyncio.to_thread(taken.wait, 30)
        try:
            yield
        finally:
            await asyncio.to_thread(remove_placement_group, taken)

    async def clean(self) -> None:
        """As if it had just been opened; opened again when it was closed."""
        if not self.provisioner._connection.is_open:
            self.provisioner = await opened(self.machines)
        await self.provisioner.end_all()
        await self.provisioner.keep_files(set())
        self.provisioner.notices()
