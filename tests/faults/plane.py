"""The control plane of fault runs: the real process, with failpoints and somebody else's replica.

Everything is what `python -m tidegate_controlplane` runs, except for how replicas come to be: one
that a test plays over HTTP stands for each, so nothing here imports torch. Leases are short.

Run as `python plane.py`, it imports all of that once, and then forks a control plane for each line
of JSON that it reads (a `Start`), so that a run begins within a moment. For each it writes a line
`[pid, null]`, and at its end `[pid, status]`. With `--once START` it becomes that control plane
itself, for who wants to trace it from its beginning.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.faults import failpoints

CAPACITY = 4
GROUP_LINES = 4
INLINE_BYTES = 256
LEASE_S = 1.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Start:
    """How one control plane is run."""

    data_dir: str
    port: int
    replica_url: str
    faults: list[str] = field(default_factory=list)
    objects: str | None = None
    database: str | None = None
    journal: str | None = None
    """Where all that it does to its disk is written down."""
    environment: dict[str, str] = field(default_factory=dict)
    clock: str | None = None
    """A file with the seconds by which its wall clock is ahead of the machine's."""
    fresh: bool = False
    """Another interpreter is started, because the environment changes how one starts."""


def run(start: Start) -> int:
    """Be a control plane until SIGTERM; its log goes to `log` in the data directory."""
    from tidegate_controlplane import process
    from tidegate_controlplane.errors import StartError
    from tidegate_controlplane.settings import (
        LimitSettings,
        PeerSettings,
        ReconcileSettings,
        Settings,
        WorkSettings,
    )

    data_dir = Path(start.data_dir)
    data_dir.mkdir(exist_ok=True)
    log = os.open(data_dir / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    os.environ.update(start.environment)
    failpoints.arm([failpoints.Fault.parse(text) for text in start.faults])
    if start.clock:
        process.SystemClock = partial(JumpingClock, Path(start.clock))  # type: ignore[assignment, misc]
    if start.journal:
        _record(data_dir, Path(start.journal))
    process.LocalProvisioner = partial(Replicas, start.replica_url)  # type: ignore[assignment]
    process.ZygoteStarter = NoZygote  # type: ignore[assignment, misc]
    process.Work = partial(process.Work, group_lines=GROUP_LINES)  # type: ignore[assignment, misc]
    settings = Settings(
        data_dir=data_dir,
        port=start.port,
        objects=start.objects,
        database=start.database,
        limits=LimitSettings(inline_body_bytes=INLINE_BYTES),
        work=WorkSettings(lease_s=LEASE_S, heartbeat_s=0.1, poll_s=0.05, retry_base_s=0.05),
        reconcile=ReconcileSettings(tick_s=0.2, busy_tick_s=0.02),
        peers=PeerSettings(lease_s=1.5 * LEASE_S, beat_s=0.1, poll_s=0.05, stale_s=LEASE_S),
        shutdown_s=5.0,
    )
    try:
        asyncio.run(process.serve(settings))
    except StartError as error:
        logging.error("%s", error)
        return error.exit_code
    return 0


def _record(data_dir: Path, path: Path) -> None:
    from tests.faults import apsw_driver, journal

    from tidegate_controlplane.store import sqlite

    recorder = journal.Recorder(path)
    journal.WatchedOs(recorder, data_dir / "objects").install()
    _kept.append(journal.WatchedVfs(recorder, data_dir))
    apsw_driver.VFS = journal.VFS
    sqlite.sqlite_driver = lambda: apsw_driver  # type: ignore[assignment, return-value]


_kept: list[object] = []
"""What must not be collected while SQLite uses it."""


class JumpingClock:
    """The machine's clocks; the wall clock is moved by whoever writes in `ahead`."""

    def __init__(self, ahead: Path) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(self._ahead.read_text()))

    def monotonic(self) -> float:
        return time.monotonic()


class NoZygote:
    """Forks nothing: `Replicas` needs no process."""

    def __init__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        pass


class Replicas:
    """Keeps the contract of `Provisioner`; the one replica that a test plays stands for each."""

    def __init__(self, url: str, *_: object, **__: object) -> None:
        self._url = url
        self._started: dict[str, Any] = {}

    async def start(self, launch) -> None:
        self._started[launch.replica_id] = launch

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Any]:
        from tidegate.protocol.resources import ReplicaPhase
        from tidegate_controlplane.domain.replicas import Missing, Running

        ready = Running(ReplicaPhase.READY, pid=2**22, process_start=0, port=1)
        return {key: ready if key in self._started else Missing() for key in replica_ids}

    def known(self) -> list[str]:
        return list(self._started)

    def endpoint(self, replica_id: str):
        from tidegate_controlplane.gateway.endpoints import Endpoint

        return Endpoint(replica_id, self._url, "token", CAPACITY)

    async def drain(self, replica_id: str) -> None:
        self._started.pop(replica_id, None)

    async def kill(self, replica_id: str) -> None:
        self._started.pop(replica_id, None)

    async def forget(self, replica_id: str) -> None:
        pass

    async def remove(self, holding: object) -> None:
        pass

    def notices(self) -> list[Any]:
        return []

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        pass

    async def sweep(self, former: object) -> None:
        pass

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[Any]:
        return []

    async def end_all(self) -> None:
        self._started.clear()

    async def close(self) -> None:
        self._started.clear()


def fork_each() -> None:
    """Read starts, fork control planes, say how they end; one thread, so that forking is safe."""
    import tidegate_controlplane.process  # noqa: F401

    living: set[int] = set()
    unread = b""
    while True:
        if select.select([0], [], [], 0.01)[0]:
            read = os.read(0, 65536)
            if not read:
                return
            *lines, unread = (unread + read).split(b"\n")
            for line in lines:
                living.add(_fork(Start(**json.loads(line))))
        for pid in list(living):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                living.discard(pid)
                print(json.dumps([pid, os.waitstatus_to_exitcode(status)]), flush=True)


def _fork(start: Start) -> int:
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(0)
        if start.fresh:
            os.execve(
                sys.executable,
                [sys.executable, __file__, "--once", json.dumps(asdict(start))],
                os.environ | start.environment,
            )
        os._exit(run(start))
    print(json.dumps([pid, None]), flush=True)
    return pid


if __name__ == "__main__":
    failpoints.install()
    if sys.argv[1:2] == ["--once"]:
        sys.exit(run(Start(**json.loads(sys.argv[2]))))
    fork_each()
