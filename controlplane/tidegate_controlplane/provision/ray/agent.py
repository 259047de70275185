"""The actor that looks after one node's replicas: it starts, watches and ends their processes.

There is one on each node, with a zygote of its own, and within it the same `LocalProvisioner` that
the control plane uses for its own machine. Its replicas are its children and die with it; it dies
with the control plane, or with its node.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tidegate.protocol.replica import Telemetry
from tidegate.protocol.resources import LogLine
from tidegate.version import VERSION
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.domain.replicas import Observation
from tidegate_controlplane.provision.base import Launch, StartFailed
from tidegate_controlplane.provision.child import ChildProcess
from tidegate_controlplane.provision.local import LocalProvisioner
from tidegate_controlplane.provision.ray.seat import Place
from tidegate_controlplane.provision.ray.transfer import (
    ARTIFACTS,
    HEADS,
    MANIFEST,
    SOURCES,
    Arrival,
    Item,
    check_artifact,
    check_heads,
    check_source,
    forget_arrivals,
    items_of,
    send,
)
from tidegate_controlplane.provision.start import RUNTIME, SpawningStarter, Starter
from tidegate_controlplane.provision.zygote_starter import ZygoteStarter
from tidegate_controlplane.settings import ReconcileSettings

logger = logging.getLogger("tidegate.node")
DIRECTORY_VARIABLE = "TIDEGATE_NODE_DIR"
"""Of a node's environment: where its agent keeps its files, in place of what it is told."""
ARTIFACT_TOOL = (sys.executable, "-m", "tidegate_runtime.artifact")


@dataclass(frozen=True)
class Orders:
    """What every agent is told."""

    directory: Path
    """On its node: artifacts, and the replicas' logs."""
    settings: ReconcileSettings
    telemetry: Telemetry
    command: tuple[str, ...] = RUNTIME
    """Starts a replica that is not forked."""
    zygote: tuple[str, ...] | None = None
    """Starts what forks replicas, if they are to be forked."""
    warm_bytes: int = 0


@dataclass(frozen=True)
class Cargo:
    """A directory that a node wants for a replica: an artifact, the source of one, or heads."""

    kind: Literal["artifacts", "sources", "heads"]
    key: str
    digest: str
    """Of the model, or of the heads."""
    precision: str = ""
    """Of an artifact."""
    file: str | None = None
    """The source is this file of the directory."""

    def check(self, path: Path) -> None:
        """Raises Damaged."""
        if self.kind == ARTIFACTS:
            check_artifact(path, self.digest, self.precision)
        elif self.kind == HEADS:
            check_heads(path, self.digest)
        else:
            check_source(path / self.file if self.file else path, self.digest)


class RayEnded(Exception):
    """Ray's own process on the node is gone, and this one follows."""


class NodeAgent:
    """The actor's class. Its methods run on one event loop."""

    def __init__(self, orders: Orders, host: str) -> None:
        """Replicas listen on `host`, the address of the node."""
        # Ray sets it to the actor's CPUs, of which an agent has none; replicas have their own.
        os.environ.pop("OMP_NUM_THREADS", None)
        self._orders = orders
        self._host = host
        self._raylet = os.getppid()
        self._directory = Path(os.environ.get(DIRECTORY_VARIABLE) or orders.directory)
        self._cache = self._directory / "cache"
        self._changed = asyncio.Event()
        self._tokens: dict[str, str] = {}
        self._gpus: dict[str, tuple[str, ...]] = {}
        self._sources: dict[str, set[str]] = {}
        """Of replicas that are known, the keys of the sources and heads they may read."""
        self._seats: dict[str, int] = {}
        """Handles of the seats' processes, by replica."""
        self._forgotten: set[str] = set()
        """Nobody asks about them any more, though they may not have ended yet."""
        self._arrivals: dict[tuple[str, str], Arrival] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._local: LocalProvisioner | None = None

    async def open(self) -> str:
        """Make ready for replicas; returns the version that runs here. Raises OSError."""
        if self._local is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(forget_arrivals, self._cache)
            self._local = LocalProvisioner(
                self._directory / "replicas",
                self._cache,
                self._orders.settings,
                SystemClock(),
                _DeviceStarter(self._starter(), self._orders.command, self._gpus),
                changed=self._changed,
                telemetry=self._orders.telemetry,
                host=self._host,
                token_of=self._tokens.__getitem__,
            )
        return VERSION

    def _starter(self) -> Starter:
        if self._orders.zygote is None:
            return SpawningStarter(self._orders.command)
        log = self._directory / "zygote.log"
        starter = ZygoteStarter(log, self._orders.warm_bytes, self._orders.zygote)
        starter.open()
        return starter

    @property
    def _here(self) -> LocalProvisioner:
        if self._local is None:
            raise StartFailed("the node's agent is not open yet")
        return self._local

    # --- replicas ---

    async def start(self, launch: Launch, token: str, seat: Place) -> None:
        """Start a replica that lives no longer than its seat. Raises StartFailed."""
        if launch.replica_id in self._seats:
            return
        self._tokens[launch.replica_id] = token
        self._gpus[launch.replica_id] = seat.gpus
        try:
            self._seats[launch.replica_id] = os.pidfd_open(seat.pid)
        except OSError as error:
            raise StartFailed(
                f"the process {seat.pid} that holds the replica's resources cannot be watched "
                f"({error.strerror}); start the node's Ray in one container with its workers"
            ) from error
        await self._here.start(launch)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._seats[launch.replica_id], self._seat_ended, launch.replica_id)

    async def look(self, within_s: float) -> Mapping[str, Observation]:
        """Every replica here as it is now: at once when something changed, else after a while.

        Raises RayEnded, so that replicas which end with their node are not taken for broken.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        self._changed.clear()
        for replica_id in list(self._forgotten):
            await self._drop(replica_id)
        wanted = [key for key in self._here.known() if key not in self._forgotten]
        seen = await self._here.observe(wanted)
        if os.getppid() != self._raylet:
            raise RayEnded("Ray has ended there")
        return seen

    async def drain(self, replica_id: str) -> None:
        await self._here.drain(replica_id)

    async def kill(self, replica_id: str) -> None:
        await self._here.kill(replica_id)

    async def forget(self, replica_id: str) -> None:
        """Drop what is held for one as soon as its process has ended, but keep its log."""
        self._forgotten.add(replica_id)
        await self._drop(replica_id)

    async def _drop(self, replica_id: str) -> None:
        await self._here.observe([replica_id])
        await self._here.forget(replica_id)
        if replica_id in self._here.known():
            return
        self._forgotten.discard(replica_id)
        self._leave_seat(replica_id)
        for held in (self._tokens, self._gpus, self._sources):
            held.pop(replica_id, None)

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        """Delete the files of other replicas, and sources and heads that none here may read."""
        await self._here.keep_files(replica_ids)
        used = set[str]().union(*self._sources.values())
        for folder in (SOURCES, HEADS):
            await asyncio.to_thread(_delete_others, self._cache / folder, used)

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        return await self._here.logs(replica_id, offset, limit)

    async def end_all(self) -> None:
        """End every replica and wait for it."""
        await self._here.end_all()

    async def close(self) -> None:
        """End everything."""
        await self._here.close()

    def _seat_ended(self, replica_id: str) -> None:
        self._leave_seat(replica_id)
        self._ending = asyncio.ensure_future(self._here.kill(replica_id))

    def _leave_seat(self, replica_id: str) -> None:
        handle = self._seats.pop(replica_id, None)
        if handle is not None:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)

    # --- what they read ---

    async def artifact_key(self, digest: str, precision: str) -> str:
        """The name that this node's runtime gives to an artifact. Raises StartFailed."""
        if (digest, precision) not in self._keys:
            said = await _ask(
                *(*ARTIFACT_TOOL, "key", digest, "--precision", precision, "--json"),
                *("--parent-pid", str(os.getpid())),
            )
            self._keys[digest, precision] = str(said["key"])
        return self._keys[digest, precision]

    async def has(self, cargo: Cargo) -> bool:
        """Whether it is here, whole."""
        path = self._cache / cargo.kind / cargo.key
        return (path / MANIFEST).is_file() if cargo.kind == ARTIFACTS else path.is_dir()

    async def read_source(self, replica_id: str, cargo: Cargo) -> str:
        """Keep a source or heads for a replica; returns the path that they have here."""
        self._sources.setdefault(replica_id, set()).add(cargo.key)
        path = self._cache / cargo.kind / cargo.key
        return str(path / cargo.file if cargo.file else path)

    async def begin(self, cargo: Cargo, items: Sequence[Item]) -> None:
        """Expect these files. Raises OSError."""
        folder = self._cache / cargo.kind
        self._arrivals[cargo.kind, cargo.key] = await asyncio.to_thread(
            Arrival, folder, cargo.key, items
        )

    async def take(self, cargo: Cargo, name: str, offset: int, content: bytes) -> None:
        """Write one piece. Raises OSError."""
        arrival = self._arrivals[cargo.kind, cargo.key]
        await asyncio.to_thread(arrival.write, name, offset, content)

    async def finish(self, cargo: Cargo) -> None:
        """Check what has arrived, and give it its name. Raises Damaged, OSError."""
        arrival = self._arrivals.pop((cargo.kind, cargo.key))
        await asyncio.to_thread(arrival.finish, cargo.check)

    async def send(self, cargo: Cargo, receiver: Any) -> int:
        """Send an artifact to the agent of another node; returns its bytes. Raises OSError."""
        root = self._cache / cargo.kind / cargo.key
        with _held(root / MANIFEST):
            names = [path.name for path in root.iterdir() if path.is_file()]
            return await deliver(root, items_of(root, names), cargo, receiver)


async def deliver(root: Path, items: Sequence[Item], cargo: Cargo, receiver: Any) -> int:
    """Send a directory to a node's agent; returns its bytes. Raises OSError and Ray's errors."""

    def submit(name: str, offset: int, content: bytes) -> Awaitable[None]:
        piece: Awaitable[None] = receiver.take.remote(cargo, name, offset, content)
        return piece

    await receiver.begin.remote(cargo, items)
    sent = await send(root, items, submit)
    await receiver.finish.remote(cargo)
    return sent


class _DeviceStarter:
    """Implements `Starter`: a replica with GPUs is a new program that sees those and no other.

    A zygote touches no device and loads nothing for one, so it forks only what runs on CPUs.
    """

    def __init__(
        self, plain: Starter, command: Sequence[str], gpus: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._plain = plain
        self._command = command
        self._gpus = gpus

    async def start(
        self, config: Path, log: Path, token: str, on_exit: Callable[[], None]
    ) -> ChildProcess:
        starter = self._plain
        if gpus := self._gpus.get(config.parent.name):
            starter = SpawningStarter(self._command, {"CUDA_VISIBLE_DEVICES": ",".join(gpus)})
        return await starter.start(config, log, token, on_exit)

    def warm(self, config: Path, model: str) -> None:
        if not self._gpus.get(config.parent.name):
            self._plain.warm(config, model)

    async def close(self) -> None:
        await self._plain.close()


async def _ask(*command: str) -> dict[str, Any]:
    """The JSON object that a tool writes. Raises StartFailed."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await child.communicate()
    try:
        said: dict[str, Any] = json.loads(out)
    except ValueError as error:
        words = err.decode(errors="replace").strip().splitlines()
        raise StartFailed(
            f"the runtime of this node does not answer: {words[-1] if words else 'no word'}; "
            "install it there: pip install 'tidegate[runtime,controlplane,ray]'"
        ) from error
    return said


def _delete_others(folder: Path, used: set[str]) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            if not path.suffix and path.name not in used:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _held(manifest: Path) -> Iterator[None]:
    """Nobody prunes an artifact whose manifest is locked. Raises OSError."""
    descriptor = os.open(manifest, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
