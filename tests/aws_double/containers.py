"""A container of the double: a real process of the suite's played replica."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Any

GRACE_S = 1.0
"""Between SageMaker's SIGTERM and its SIGKILL; minutes there."""


class Container:
    """One process. Made on the event loop."""

    def __init__(self, command: tuple[str, ...], home: Path, behaviour: str, number: int) -> None:
        self._command = command
        self._home = home
        self._behaviour = behaviour
        self._number = number
        self.token = secrets.token_urlsafe(32)
        self.process: asyncio.subprocess.Process | None = None
        self.lines: list[str] = []
        self._bell = _Bell()

    async def start(self) -> str | None:
        """Its URL once it says that it is ready; None when it ends before."""
        self._home.mkdir(parents=True)
        status = self._home / "status.json"
        config = {
            "replica_id": f"rep_{self._number}",
            "source": self._behaviour,
            "host": "127.0.0.1",
            "status_path": str(status),
            "status_bell": self._bell.name,
        }
        path = self._home / "config.json"
        path.write_text(json.dumps(config))
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            "--config",
            str(path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "TIDEGATE_REPLICA_TOKEN": self.token},
        )
        self._reading = asyncio.create_task(self._read())
        while self.process.returncode is None:
            said = _read(status)
            if said.get("state") == "ready":
                return f"http://127.0.0.1:{said['port']}"
            await asyncio.sleep(0.01)
        await self.ended()
        return None

    async def _read(self) -> None:
        assert self.process and self.process.stdout
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    async def ended(self) -> None:
        assert self.process
        await self.process.wait()
        await self._reading
        self._bell.close()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, and SIGKILL for one that does not end."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.ended()


class _Bell:
    """Where the played replica rings; nobody listens."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")
        self._socket.settimeout(0)
        self.name = self._socket.getsockname()[1:].decode()

    def close(self) -> None:
        self._socket.close()


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
