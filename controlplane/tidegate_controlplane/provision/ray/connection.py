"""The connection to Ray: one per process.

Ray's calls block, so they run on threads that live as long as the connection: the processes of an
embedded cluster ask the kernel to die with the thread that started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tidegate_controlplane.domain.cluster import ClusterNode, Needs
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.provision.ray.agent import NodeAgent, Orders
from tidegate_controlplane.provision.ray.seat import Seat

EMBEDDED = "local"
THREADS = 4
CONNECT_S = 5.0
NODE_LABEL = "ray.io/node-id"
GPU_LABEL = "ray.io/accelerator-type"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default Ray ends this process a minute after the head of the cluster has gone.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    # Ray has its own default by version, which is none for a cluster that is not embedded.
    "RAY_AUTH_MODE": "token",
}
T = TypeVar("T")


class Connection:
    """Use it from one event loop."""

    def __init__(self, address: str, namespace: str) -> None:
        self._address = address
        self._namespace = namespace
        self._owned = False
        self.is_open = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ray")

    async def open(self) -> None:
        """Connect, and end what an earlier driver left in the namespace. Raises StartFailed."""
        self._owned = await self.call(_connect, self._address, self._namespace)
        await self.call(_end_named)
        self.is_open = True

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def nodes(self) -> list[ClusterNode]:
        """Every node that Ray believes alive and that has a CPU."""
        return await self.call(_nodes)

    async def close(self) -> None:
        """Disconnect; an embedded cluster ends. Idempotent."""
        if self._owned:
            await self.call(_disconnect)
        self._owned = self.is_open = False
        await asyncio.to_thread(self._threads.shutdown)


def make_agent(node: ClusterNode, name: str, orders: Orders) -> Any:
    """The agent of a node, and of no other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    actor = ray.remote(NodeAgent).options(num_cpus=0, name=name, scheduling_strategy=there)
    return actor.remote(orders, node.address)


def reserve(name: str, needs: Needs, avoided: frozenset[str]) -> tuple[Any, Any]:
    """A placement group on none of the nodes that are `avoided`, and the seat within it."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    labels = {NODE_LABEL: f"!in({','.join(sorted(avoided))})"} if avoided else {}
    if needs.gpu_type:
        labels[GPU_LABEL] = needs.gpu_type
    bundle = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_bytes}
    bundle = {what: count for what, count in bundle.items() if count}
    group = placement_group(
        [bundle], strategy="STRICT_PACK", name=name, bundle_label_selector=[labels]
    )
    seat = ray.remote(Seat).options(
        name=name,
        num_cpus=needs.cpus,
        num_gpus=needs.gpus,
        memory=needs.memory_bytes,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0),
    )
    return group, seat.remote()


def state_of(group: Any) -> str:
    """PENDING, CREATED, RESCHEDULING or REMOVED."""
    from ray.util.placement_group import placement_group_table

    return str(placement_group_table(group).get("state"))


def let_go(actor: Any, group: Any) -> None:
    """End a seat and what was reserved for it. Never raises."""
    from ray.exceptions import RayError
    from ray.util.placement_group import remove_placement_group

    give_up(actor)
    with contextlib.suppress(RayError, ValueError):
        remove_placement_group(group)


def give_up(actor: Any) -> None:
    """End an actor. Never raises."""
    import ray
    from ray.exceptions import RayError

    with contextlib.suppress(RayError, ValueError):
        ray.kill(actor)


def _connect(address: str, namespace: str) -> bool:
    """Whether it was this that connected. Raises StartFailed."""
    for name, value in ENVIRONMENT.items():
        if name != "RAY_AUTH_MODE" or address == EMBEDDED:
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise StartFailed(
            "the provisioner ray needs what is not installed; pip install 'tidegate[ray]'"
        ) from error
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    if "://" in address:
        raise StartFailed(
            f"ray.address: {address!r} is one for clients, which cannot hold replicas; run "
            "`ray start --address=HOST:6379 --num-cpus=0` on this machine and use 'auto'"
        )
    _check_listens(address)
    embedded: dict[str, Any] = {"include_dashboard": False} if address == EMBEDDED else {}
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            configure_logging=False,
            **embedded,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _unreachable(address, words) from error
    return True


def _check_listens(address: str) -> None:
    """Ray itself tries for minutes. Raises StartFailed."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S):
            return
    except OSError as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> StartFailed:
    return StartFailed(
        f"ray.address: cannot connect to a Ray cluster at {address!r}: {why}; look at "
        f"`ray status --address {address}`, or use {EMBEDDED!r} for a cluster of this machine"
    )


def _disconnect() -> None:
    import ray

    ray.shutdown()


def _end_named() -> None:
    import ray
    from ray.util import list_named_actors

    for name in list_named_actors():
        try:
            actor = ray.get_actor(name)
        except ValueError:  # it ended meanwhile
            continue
        give_up(actor)


def _nodes() -> list[ClusterNode]:
    import ray

    return [_node(each) for each in ray.nodes() if each["Alive"] and "CPU" in each["Resources"]]


def _node(said: dict[str, Any]) -> ClusterNode:
    has = said["Resources"]
    return ClusterNode(
        node_id=said["NodeID"],
        address=said["NodeManagerAddress"],
        cpus=has["CPU"],
        memory_bytes=int(has.get("memory", 0)),
        gpus=has.get("GPU", 0),
        gpu_type=said["Labels"].get(GPU_LABEL),
    )
