"""Processes of the control plane, started within a moment, and who starts them again."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.faults.plane import Start

SCRIPT = Path(__file__).with_name("plane.py")


@dataclass
class Process:
    """One control plane; `status` is there once it ended."""

    pid: int
    ended: threading.Event = field(default_factory=threading.Event)
    status: int | None = None

    def wait(self, timeout_s: float = 60) -> int:
        assert self.ended.wait(timeout_s), f"process {self.pid} still runs after {timeout_s} s"
        assert self.status is not None
        return self.status

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Nursery:
    """Imports the control plane once, and forks it as often as it is wanted."""

    def __init__(self, source: Path | None = None) -> None:
        """`source` is the folder of another control plane's source, to be imported instead."""
        paths = [str(source)] if source else []
        paths += [os.environ.get("PYTHONPATH", "")]
        self._script = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            text=True,
        )
        self._started: queue.Queue[Process] = queue.Queue()
        self._living: dict[int, Process] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, start: Start) -> Process:
        with self._lock:
            assert self._script.stdin
            self._script.stdin.write(json.dumps(asdict(start)) + "\n")
            self._script.stdin.flush()
            return self._started.get(timeout=60)

    def close(self) -> None:
        assert self._script.stdin and self._script.stdout
        self._script.stdin.close()
        self._script.wait(timeout=60)
        self._reader.join()
        self._script.stdout.close()

    def _read(self) -> None:
        assert self._script.stdout
        for line in self._script.stdout:
            pid, status = json.loads(line)
            if status is None:
                self._living[pid] = Process(pid)
                self._started.put(self._living[pid])
            else:
                process = self._living.pop(pid)
                process.status = status
                process.ended.set()


class Supervisor:
    """Starts a control plane, and again whenever it is killed, as systemd would.

    `lives` are the faults of one life after another; later lives have none.
    """

    def __init__(self, nursery: Nursery, start: Start, lives: list[list[str]]) -> None:
        self._nursery = nursery
        self._start = start
        self._lives = lives
        self._stopping = threading.Event()
        self.ends: list[int] = []
        """Exit statuses of the lives that are over."""
        self.process = self._begin()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it as an operator does."""
        self._stopping.set()
        if not self.process.ended.is_set():
            self.process.send(signal.SIGTERM)
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    @property
    def kills(self) -> int:
        return self.ends.count(-signal.SIGKILL)

    def _begin(self) -> Process:
        life = len(self.ends)
        faults = self._lives[life] if life < len(self._lives) else []
        return self._nursery.start(replace(self._start, faults=faults))

    def _watch(self) -> None:
        while True:
            self.process.ended.wait()
            self.ends.append(self.process.wait())
            if self._stopping.is_set():
                return
            if self.ends[-1] != -signal.SIGKILL:
                time.sleep(0.1)
            self.process = self._begin()
