"""Replicas as child processes of this machine, each on a port of its own, each with its own log.

A child asks the kernel to be killed when the control plane dies, and watches for it besides, so
none survives it. The token a replica wants lives in memory and in its environment only.

What changes rings `changed`: a replica's status, by a datagram, and its end. Both are hints; what
is true is in the status file and in the process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tidegate.protocol.replica import ReplicaConfig, ReplicaState, Telemetry
from tidegate.protocol.resources import LogLine, ReplicaPhase
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.replicas import Exited, Missing, NoCapacity, Observation, Running
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import FormerReplica, Launch, Provisioner, StartFailed
from tidegate_controlplane.provision.configuration import planned_fields
from tidegate_controlplane.provision.health import HealthChecks
from tidegate_controlplane.provision.local_child import (
    LocalChild,
    exited,
    has_ended,
    read_status,
    send,
)
from tidegate_controlplane.provision.log import read_lines
from tidegate_controlplane.provision.process import kill_exactly
from tidegate_controlplane.provision.start import OutOfCapacity, Starter
from tidegate_controlplane.provision.status_bell import StatusBell
from tidegate_controlplane.provision.subreaper import Strays
from tidegate_controlplane.settings import ReconcileSettings

LOOPBACK = "127.0.0.1"
END_GRACE_S = 5.0
"""Seconds for a process that said it failed, or whose drain is over, to end by itself."""
_PHASES = {
    ReplicaState.STARTING: ReplicaPhase.STARTING,
    ReplicaState.LOADING: ReplicaPhase.LOADING,
    ReplicaState.READY: ReplicaPhase.READY,
    ReplicaState.DRAINING: ReplicaPhase.DRAINING,
    ReplicaState.FAILED: ReplicaPhase.LOADING,
}
"""A process that says it failed is about to end; why is told by how it does."""


class LocalProvisioner(Provisioner):
    """Implements `Provisioner` with child processes.

    Use it from an event loop in the main thread: the kernel ties a child's life to the thread that
    started it.
    """

    def __init__(
        self,
        directory: Path,
        cache_dir: Path,
        settings: ReconcileSettings,
        clock: Clock,
        starter: Starter,
        changed: asyncio.Event | None = None,
        telemetry: Telemetry | None = None,
        host: str = LOOPBACK,
        token_of: Callable[[str], str] = lambda _: secrets.token_urlsafe(32),
        gpu_starter: Starter | None = None,
    ) -> None:
        """Replicas listen on `host`, and want the token that `token_of` makes of their id.

        `gpu_starter` makes those on a GPU, when `starter` cannot: what a zygote has imported is
        for processors alone.
        """
        self._directory = directory
        self._cache_dir = cache_dir
        self._settings = settings
        self._clock = clock
        self._starter = starter
        self._gpu_starter = gpu_starter or starter
        self._changed = changed or asyncio.Event()
        self._telemetry = telemetry or Telemetry()
        self._host = host
        self._token_of = token_of
        self._children: dict[str, LocalChild] = {}
        self._strays = Strays()
        self._health = HealthChecks(directory, settings, self._url)
        self._bell = StatusBell(self._changed.set)

    async def start(self, launch: Launch) -> None:
        if launch.replica_id in self._children:
            return
        home = self._directory / launch.replica_id
        config = self._write_config(launch, home)
        token, now = self._token_of(launch.replica_id), self._clock.monotonic()
        child = self._children[launch.replica_id] = LocalChild(launch, token, now)
        child.making = asyncio.create_task(self._make(child, config, home / "log"))

    async def _make(self, child: LocalChild, config: Path, log: Path) -> None:
        starter = self._starter_of(child.launch)
        try:
            child.process = await starter.start(config, log, child.token, self._changed.set)
        except OutOfCapacity as error:
            child.unmade = NoCapacity(str(error))
        except StartFailed as error:
            child.unmade = Exited(1, "StartFailed", str(error))
        if child.process and child.unwanted:
            child.process.send(signal.SIGKILL)
        self._changed.set()

    def _starter_of(self, launch: Launch) -> Starter:
        return self._gpu_starter if launch.plan.gpu else self._starter

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        self._strays.collect({c.process.pid for c in self._children.values() if c.process})
        return {replica_id: self._observe(replica_id) for replica_id in replica_ids}

    def known(self) -> list[str]:
        return list(self._children)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        child = self._children.get(replica_id)
        if child is None or child.port is None:
            return None
        return Endpoint(
            replica_id=replica_id,
            url=self._url(child.port),
            token=child.token,
            capacity=child.launch.plan.max_sequences,
        )

    def _url(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    async def drain(self, replica_id: str) -> None:
        child = self._children.get(replica_id)
        if child is None or child.deadline is not None:
            return
        grace_s = child.launch.plan.drain_timeout_s + END_GRACE_S
        child.deadline = self._clock.monotonic() + grace_s
        send(child, signal.SIGTERM)

    async def kill(self, replica_id: str) -> None:
        if child := self._children.get(replica_id):
            send(child, signal.SIGKILL)

    async def forget(self, replica_id: str) -> None:
        child = self._children.get(replica_id)
        if child is not None and has_ended(child):
            del self._children[replica_id]
            if child.check:
                child.check.cancel()

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        for each in former:
            if each.pid is not None and each.process_start is not None:
                await asyncio.to_thread(kill_exactly, each.pid, each.process_start)

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        path = self._directory / replica_id / "log"
        return await asyncio.to_thread(read_lines, path, replica_id, offset, limit)

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        await asyncio.to_thread(_delete_others, self._directory, frozenset(replica_ids))

    async def close(self) -> None:
        await self._starter.close()
        await self.end_all()
        self._bell.close()
        await self._health.close()

    async def end_all(self) -> None:
        children = list(self._children.values())
        checks = [child.check for child in children if child.check]
        for check in checks:
            check.cancel()
        for child in children:
            send(child, signal.SIGKILL)
        await asyncio.gather(*checks, return_exceptions=True)
        await asyncio.gather(*(child.making for child in children if child.making))
        await asyncio.gather(*(child.process.wait() for child in children if child.process))
        for child in children:
            self._children.pop(child.launch.replica_id, None)

    def _write_config(self, launch: Launch, home: Path) -> Path:
        config = ReplicaConfig.model_validate(
            {
                **planned_fields(launch),
                "replica_id": launch.replica_id,
                "host": self._host,
                "status_path": str(home / "status.json"),
                "status_bell": self._bell.name,
                "cache_dir": str(self._cache_dir),
                "telemetry": self._telemetry,
                "parent_pid": os.getpid(),
            }
        )
        path = home / "config.json"
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            path.write_text(config.model_dump_json(indent=2))
        except OSError as error:
            raise StartFailed(f"cannot write {path}: {error.strerror}") from error
        return path

    def _observe(self, replica_id: str) -> Observation:
        child = self._children.get(replica_id)
        if child is None:
            return Missing()
        if child.process is None:
            return child.unmade or Missing()
        status = read_status(self._directory / replica_id / "status.json", child.process.pid)
        child.status = status or child.status
        if child.process.returncode is not None:
            return exited(child, child.process.returncode, self._directory / replica_id / "log")
        now = self._clock.monotonic()
        self._hurry(child, now)
        if child.says is ReplicaState.READY:
            self._health.check(child, now)
            self._keep_warm(child)
        return Running(
            phase=_PHASES[child.says],
            pid=child.process.pid,
            process_start=child.process.process_start,
            port=child.port,
            healthy=self._is_healthy(child),
            overdue=now - child.started_at > self._settings.start_timeout_s,
            kv_used=child.said.kv_used if child.said else 0.0,
            waiting=child.said.waiting if child.said else 0,
        )

    def _keep_warm(self, child: LocalChild) -> None:
        """The next replica of this kind shall find its model warm."""
        if not child.warmed:
            child.warmed = True
            launch = child.launch
            config = self._directory / launch.replica_id / "config.json"
            self._starter_of(launch).warm(config, f"{launch.digest} in {launch.plan.precision}")

    def _is_healthy(self, child: LocalChild) -> bool:
        failed = child.says is ReplicaState.FAILED
        return not failed and child.failed_checks < self._settings.health_failures

    def _hurry(self, child: LocalChild, now: float) -> None:
        """Kill one that should have ended by now."""
        if child.deadline is None and child.says is ReplicaState.FAILED:
            child.deadline = now + END_GRACE_S
        if child.deadline is not None and now > child.deadline:
            send(child, signal.SIGKILL)


def _delete_others(directory: Path, kept: frozenset[str]) -> None:
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
