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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from tidegate.protocol.replica import (
    EXIT_DRAINED,
    EXIT_REFUSED,
    TOKEN_VARIABLE,
    ReplicaConfig,
    ReplicaState,
    ReplicaStatus,
)
from tidegate.protocol.resources import LogLine, ReplicaPhase
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.replicas import Exited, Missing, Observation, Running
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision.base import FormerProcess, Launch, StartFailed
from tidegate_controlplane.provision.process import kill_exactly, start_ticks
from tidegate_controlplane.settings import ReconcileSettings

LOG_LINE_BYTES = 16 * 1024
LOG_TAIL_BYTES = 2048
_PHASES = {
    ReplicaState.STARTING: ReplicaPhase.STARTING,
    ReplicaState.LOADING: ReplicaPhase.LOADING,
    ReplicaState.READY: ReplicaPhase.READY,
    ReplicaState.DRAINING: ReplicaPhase.DRAINING,
    ReplicaState.FAILED: ReplicaPhase.LOADING,
}


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
    drain_deadline: float | None = None


class LocalProvisioner:
    """Implements `Provisioner` with child processes.

    Use it from an event loop in the main thread: the kernel ties a child's life to the thread that
    started it.
    """

    def __init__(
        self, directory: Path, cache_dir: Path, settings: ReconcileSettings, clock: Clock
    ) -> None:
        self._directory = directory
        self._cache_dir = cache_dir
        self._settings = settings
        self._clock = clock
        self._children: dict[str, _Child] = {}
        self._health = httpx.AsyncClient(timeout=settings.health_timeout_s)

    async def start(self, launch: Launch) -> None:
        if launch.replica_id in self._children:
            return
        home = self._directory / launch.replica_id
        config = self._write_config(launch, home)
        token = secrets.token_urlsafe(32)
        try:
            with (home / "log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "tidegate_runtime.server",
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
        if child is None or child.status is None or child.status.port is None:
            return None
        return Endpoint(
            replica_id=replica_id,
            url=f"http://127.0.0.1:{child.status.port}",
            token=child.token,
            capacity=child.launch.plan.max_sequences,
        )

    async def drain(self, replica_id: str) -> None:
        child = self._children.get(replica_id)
        if child is None or child.drain_deadline is not None:
            return
        grace_s = child.launch.plan.drain_timeout_s + 5.0
        child.drain_deadline = self._clock.monotonic() + grace_s
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
        return await asyncio.to_thread(_read_lines, path, replica_id, offset, limit)

    async def remove(self, replica_id: str) -> None:
        """Delete the log and the files of a replica whose deployment is gone."""
        await asyncio.to_thread(shutil.rmtree, self._directory / replica_id, ignore_errors=True)

    async def close(self) -> None:
        for child in self._children.values():
            if child.check:
                child.check.cancel()
            _signal(child.process.kill)
        await asyncio.gather(*(child.process.wait() for child in self._children.values()))
        self._children.clear()
        await self._health.aclose()

    def _write_config(self, launch: Launch, home: Path) -> Path:
        plan = launch.plan
        precision: Literal["bf16", "fp32"] = "fp32" if plan.precision == "fp32" else "bf16"
        config = ReplicaConfig(
            replica_id=launch.replica_id,
            model_name=launch.model_name,
            source=launch.source,
            task="embed" if launch.task == "embed" else "generate",
            revision=launch.revision,
            status_path=str(home / "status.json"),
            cache_dir=str(self._cache_dir),
            precision=precision,
            context_tokens=plan.context_tokens,
            kv_cache_bytes=plan.kv_cache_bytes or None,
            max_sequences=plan.max_sequences,
            threads=plan.threads,
            drain_s=plan.drain_timeout_s,
            parent_pid=os.getpid(),
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
        if child.drain_deadline is not None and now > child.drain_deadline:
            _signal(child.process.kill)
        phase = _PHASES[child.status.state] if child.status else ReplicaPhase.STARTING
        if phase is ReplicaPhase.READY:
            self._check_health(child, now)
        return Running(
            phase=phase,
            pid=child.process.pid,
            process_start=child.process_start,
            port=child.status.port if child.status else None,
            healthy=child.failed_checks < self._settings.health_failures,
            overdue=now - child.started_at > self._settings.start_timeout_s,
        )

    def _exited(self, replica_id: str, child: _Child) -> Exited:
        code = child.process.returncode or 0
        said = child.status
        if said and said.state is ReplicaState.FAILED:
            reason, message = said.reason or "Crashed", said.message or f"exited with {code}"
            return Exited(code, reason, message, refused=code == EXIT_REFUSED)
        if code == EXIT_DRAINED:
            return Exited(code, "Ended", "it ended without being asked to")
        tail = _tail(self._directory / replica_id / "log")
        how = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
        message = f"{how}; its log ends: {tail}" if tail else how
        return Exited(code, "Crashed", message, refused=code == EXIT_REFUSED)

    def _check_health(self, child: _Child, now: float) -> None:
        """Start a check in the background when one is due; its outcome is read next time."""
        if child.check and not child.check.done():
            return
        if now - child.checked_at >= self._settings.health_interval_s:
            child.checked_at = now
            child.check = asyncio.create_task(self._health_check(child))

    async def _health_check(self, child: _Child) -> None:
        port = child.status.port if child.status else None
        try:
            answer = await self._health.get(f"http://127.0.0.1:{port}/readyz")
        except httpx.HTTPError:
            child.failed_checks += 1
            return
        draining = child.drain_deadline is not None
        child.failed_checks = 0 if answer.is_success or draining else child.failed_checks + 1


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


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _read_lines(path: Path, replica_id: str, offset: int, limit: int) -> list[LogLine]:
    lines: list[LogLine] = []
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while len(lines) < limit and (line := file.readline(LOG_LINE_BYTES)):
                if not line.endswith(b"\n") and len(line) < LOG_LINE_BYTES:
                    break
                text = line.decode(errors="replace").rstrip("\n")
                lines.append(LogLine(replica=replica_id, offset=file.tell(), text=text))
    except FileNotFoundError:
        return []
    return lines
