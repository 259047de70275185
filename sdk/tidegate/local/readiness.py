"""Is the control plane that was just started up yet?"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tidegate.connection import Connection
from tidegate.errors import LocalError
from tidegate.local.home import Home
from tidegate.local.launch import Start
from tidegate.telemetry.logs import readable

POLL_S = 0.1
PROBE_TIMEOUT_S = 2.0
TAIL_LINES = 15
TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Before:
    """How the directory looked before the start, to tell this run's words from the last one's."""

    connection_stamp: tuple[int, int] | None
    log_bytes: int

    @classmethod
    def look(cls, home: Home) -> Before:
        log = home.log_file
        return cls(home.connection_stamp(), log.stat().st_size if log.exists() else 0)


class Stopped(LocalError):
    """It ended before it was ready, with `status` as its exit status."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words or f"the platform stopped before it was ready (exit {status})")


def wait_ready(
    start: Start, process: subprocess.Popen[bytes], before: Before, timeout_s: float | None
) -> Connection:
    """Wait until it answers on the address that it wrote.

    Raises Stopped when it ends before, LocalError after `timeout_s` seconds (None: never).
    """
    began_s = time.monotonic()
    while True:
        status = process.poll()
        if status is not None:
            raise Stopped(status, last_words(start.home, before))
        connection = _announced(start, process, before)
        if connection is not None and answers(connection):
            return connection
        if timeout_s is not None and time.monotonic() - began_s > timeout_s:
            raise LocalError(
                f"the platform was not ready after {timeout_s:g} s; its log is "
                f"{start.home.log_file}\n{last_words(start.home, before)}".rstrip()
            )
        time.sleep(POLL_S)


def answers(connection: Connection) -> bool:
    """Whether a server says that it is ready there."""
    try:
        url = f"{connection.url}/readyz"
        return httpx.get(url, timeout=PROBE_TIMEOUT_S, trust_env=False).status_code == 200
    except (httpx.TransportError, httpx.InvalidURL):
        return False


def last_words(home: Home, before: Before) -> str:
    """What this run wrote to the log: its error when it named one, else the last lines."""
    try:
        with home.log_file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(before.log_bytes, size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    named = [line for line in lines if line.startswith("error: ")]
    return (
        named[-1].removeprefix("error: ")
        if named
        else "\n".join(map(readable, lines[-TAIL_LINES:]))
    )


def _announced(start: Start, process: subprocess.Popen[bytes], before: Before) -> Connection | None:
    """The address, once this run and not an earlier one has written it."""
    running = start.home.process()
    is_new = start.home.connection_stamp() != before.connection_stamp
    if not is_new and (running is None or running.pid != process.pid):
        return None
    connection = start.home.connection()
    if connection and start.port and urlsplit(connection.url).port != start.port:
        return None
    return connection
