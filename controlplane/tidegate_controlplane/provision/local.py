"""Replicas as child processes of this machine, each on a loopback port, each with its own log.

A child asks the kernel to be killed when the control plane dies, and watches for it besides, so
none survives it. The token a replica wants is made for it here and lives in memory and in its
environment only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tidegate.protocol.replica import (
    EXIT_DRAINED,
    EXIT_REFUSED,
    TOKEN_VARIABLE,
    ReplicaConfig,
    ReplicaReady,
    ReplicaState,
    ReplicaStatus,
)
from tidegate.protocol.resources import LogLine, ReplicaPhase
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.replicas import Exited, Missing, Observation, Running
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import FormerProcess, Launch, StartFailed
from tidegate_controlplane.provision.log import last_line, read_lines
from tidegate_controlplane.provision.process import kill_exactly, start_ticks
from tidegate_controlplane.settings import ReconcileSettings

RUNTIME = (sys.executable, "-m", "tidegate_runtime.server")
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


@dataclass
class _Child:
    launch: Launch
    process: asyncio.subprocess.Process
    process_start: int
    token: str = field(repr=False)
    started_at: float = 0.0
    status: ReplicaStatus | None = None
    checked_at: float = 0.0
    failed_checks: int = 0
    check: asyncio.Task[None] | None = None
    said: ReplicaReady | None = None
    """The answer to its last health check."""
    deadline: float | None = None
    """It is killed when it still runs then: it was asked to drain, or said that it failed."""

    @property
    def port(self) -> int | None:
        return self.status.port if self.status else None

    @property
    def says(self) -> ReplicaState:
        return self.status.state if self.status else ReplicaState.STARTING


class LocalProvisioner:
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
        command: Sequence[str] = RUNTIME,
    ) -> None:
        """`command` starts a process that follows `tidegate.protocol.replica`."""
        self._command = command
        self._directory = directory
        self._cache_dir = cache_dir
        self._settings = settings
        self._clock = clock
        self._children: dict[str, _Child] = {}
        self._health = httpx.AsyncClient(timeout=settings.health_timeout_s, trust_env=False)

    async def start(self, launch: Launch) -> None:
        if launch.replica_id in self._children:
            return
        home = self._directory / launch.replica_id
        config = self._write_config(launch, home)
        token = secrets.token_urlsafe(32)
        try:
            with (home / "log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    "--config",
                    str(config),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, TOKEN_VARIABLE: token, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            raise StartFailed(f"cannot start a replica process: {error}") from error
        self._children[launch.replica_id] = _Child(
            launch=launch,
            process=process,
            process_start=start_ticks(process.pid) or 0,
            token=token,
            started_at=self._clock.monotonic(),
        )

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {replica_id: self._observe(replica_id) for replica_id in replica_ids}

    def known(self) -> list[str]:
        return list(self._children)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        child = self._children.get(replica_id)
        if child is None or child.port is None:
            return None
        return Endpoint(
            replica_id=replica_id,
            url=f"http://127.0.0.1:{child.port}",
            token=child.token,
            capacity=child.launch.plan.max_sequences,
        )

    async def drain(self, replica_id: str) -> None:
        child = self._children.get(replica_id)
        if child is None or child.deadline is not None:
            return
        grace_s = child.launch.plan.drain_timeout_s + END_GRACE_S
        child.deadline = self._clock.monotonic() + grace_s
        _signal(child.process.terminate)

    async def kill(self, replica_id: str) -> None:
        if child := self._children.get(replica_id):
            _signal(child.process.kill)

    async def forget(self, replica_id: str) -> None:
        child = self._children.get(replica_id)
        if child is not None and child.process.returncode is not None:
            del self._children[replica_id]
            if child.check:
                child.check.cancel()

    async def sweep(self, former: list[FormerProcess]) -> None:
        for process in former:
            await asyncio.to_thread(kill_exactly, process.pid, process.process_start)

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        path = self._directory / replica_id / "log"
        return await asyncio.to_thread(read_lines, path, replica_id, offset, limit)

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        await asyncio.to_thread(_delete_others, self._directory, frozenset(replica_ids))

    async def close(self) -> None:
        children = list(self._children.values())
        checks = [child.check for child in children if child.check]
        for check in checks:
            check.cancel()
        for child in children:
            _signal(child.process.kill)
        await asyncio.gather(*checks, return_exceptions=True)
        await asyncio.gather(*(child.process.wait() for child in children))
        self._children.clear()
        await self._health.aclose()

    def _write_config(self, launch: Launch, home: Path) -> Path:
        plan = launch.plan
        config = ReplicaConfig.model_validate(
            {
                "replica_id": launch.replica_id,
                "model_name": launch.model_name,
                "source": launch.source,
                "source_digest": launch.digest,
                "task": launch.task,
                "revision": launch.revision,
                "status_path": str(home / "status.json"),
                "cache_dir": str(self._cache_dir),
                "precision": plan.precision,
                "context_tokens": plan.context_tokens,
                "speculation": plan.speculation,
                "kv_cache_bytes": plan.kv_cache_bytes or None,
                "max_sequences": plan.max_sequences,
                "threads": plan.threads,
                "drain_s": plan.drain_timeout_s,
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
        status = _read_status(self._directory / replica_id / "status.json", child.process.pid)
        child.status = status or child.status
        if child.process.returncode is not None:
            return self._exited(replica_id, child)
        now = self._clock.monotonic()
        self._hurry(child, now)
        if child.says is ReplicaState.READY:
            self._check_health(child, now)
        return Running(
            phase=_PHASES[child.says],
            pid=child.process.pid,
            process_start=child.process_start,
            port=child.port,
            healthy=self._is_healthy(child),
            overdue=now - child.started_at > self._settings.start_timeout_s,
            kv_used=child.said.kv_used if child.said else 0.0,
            waiting=child.said.waiting if child.said else 0,
        )

    def _is_healthy(self, child: _Child) -> bool:
        failed = child.says is ReplicaState.FAILED
        return not failed and child.failed_checks < self._settings.health_failures

    def _hurry(self, child: _Child, now: float) -> None:
        """Kill one that should have ended by now."""
        if child.deadline is None and child.says is ReplicaState.FAILED:
            child.deadline = now + END_GRACE_S
        if child.deadline is not None and now > child.deadline:
            _signal(child.process.kill)

    def _exited(self, replica_id: str, child: _Child) -> Exited:
        code = child.process.returncode or 0
        refused = code == EXIT_REFUSED
        if child.status and child.says is ReplicaState.FAILED:
            reason = child.status.reason or "Crashed"
            return Exited(code, reason, child.status.message or f"exited with {code}", refused)
        if code == EXIT_DRAINED:
            return Exited(code, "Ended", "it ended without being asked to")
        how = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
        said = last_line(self._directory / replica_id / "log")
        message = f"{how}; its log ends: {said}" if said else how
        return Exited(code, "Crashed", message, refused)

    def _check_health(self, child: _Child, now: float) -> None:
        """Start a check in the background when one is due; its outcome is read next time."""
        if child.check and not child.check.done():
            return
        if child.check is None or now - child.checked_at >= self._settings.health_interval_s:
            child.checked_at = now
            child.check = asyncio.create_task(self._health_check(child))

    async def _health_check(self, child: _Child) -> None:
        """A process that lost its port to another one is not healthy, whatever that one says."""
        try:
            answer = await self._health.get(f"http://127.0.0.1:{child.port or 0}/readyz")
            ready = ReplicaReady.model_validate_json(answer.content)
        except (httpx.HTTPError, ValueError):
            child.failed_checks += 1
            return
        own = ready.replica_id == child.launch.replica_id
        child.said = ready if own else None
        child.failed_checks = 0 if own and answer.is_success else child.failed_checks + 1


def _signal(send: Callable[[], None]) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        send()


def _read_status(path: Path, pid: int) -> ReplicaStatus | None:
    """The status file of that process; None before it wrote one."""
    try:
        status = ReplicaStatus.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return status if status.pid == pid else None


def _delete_others(directory: Path, kept: frozenset[str]) -> None:
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
