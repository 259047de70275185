"""A driver's process as the suite sees it: start, ask, pause, end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.driver import Unsupported
from benchmarks.procfs import CpuTime, cpu_time, peak_bytes

GRACE_S = 10.0
ANSWER_S = 900.0


class DriverFailed(Exception):
    """A driver ended or hangs; says the last line it wrote."""


@dataclass(frozen=True)
class Command:
    """How a driver is started, and where its standard error goes."""

    arguments: Sequence[str]
    env: Mapping[str, str]
    log: Path


class Process:
    """One running driver, leading a group of its own so that it can be ended with its children."""

    def __init__(self, command: Command) -> None:
        """Start it and wait until it has answered its first token. Raises DriverFailed."""
        self._log = command.log
        began = time.perf_counter()
        with command.log.open("w") as log:
            self._process = subprocess.Popen(
                command.arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **command.env},
                start_new_session=True,
            )
        self._read()
        self.ready_s = time.perf_counter() - began

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer. Raises Unsupported, and DriverFailed when it ends instead."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error
        answer = self._read()
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        return answer

    @property
    def pid(self) -> int:
        """Of the driver itself, the first of its tree."""
        return self._process.pid

    def pause(self) -> None:
        """Stop it and its children, so that those who are measured have the cores."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def cpu_time(self) -> CpuTime:
        """Of its whole tree and of the machine."""
        return cpu_time(self._process.pid)

    def peak_bytes(self) -> int:
        """The largest resident size of its whole tree so far."""
        return peak_bytes(self._process.pid)

    def close(self) -> None:
        """End it, kindly first, and whatever it has started."""
        self.resume()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            self.close()
            raise DriverFailed(f"it did not answer within {ANSWER_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> DriverFailed:
        self.close()
        lines = self._log.read_text(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return DriverFailed(f"exit status {self._process.returncode}: {last}")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
