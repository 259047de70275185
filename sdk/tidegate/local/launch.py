"""Start the control plane as a child process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import LocalError
from tidegate.local.home import Home
from tidegate.telemetry.logs import LogFormat

MODULE = "tidegate_controlplane"
NEEDED = (MODULE, "litestar", "uvicorn")
REMEDY = "pip install 'tidegate[controlplane,runtime]'"
STDERR = 2
GRACE_S = 10.0


@dataclass(frozen=True)
class Start:
    """What to start: on which directory, listening where. `port` 0 takes any free one.

    `config` is a YAML file of settings; what is given beside it is over it. `objects` is an
    `s3://bucket/prefix` for payloads and results, instead of the directory; `database` is a
    `postgresql://…` URL for all rows, instead of the SQLite file; `otlp_endpoint` is where traces
    go, if not where the environment says; `encryption_keys` are key files, or `kms:<key id>`, the
    last of which seals what is stored.
    """

    home: Home
    config: Path | None = None
    host: str | None = None
    port: int | None = None
    objects: str | None = None
    database: str | None = None
    log_format: LogFormat | None = None
    otlp_endpoint: str | None = None
    encryption_keys: Sequence[str] = ()
    encryption_required: bool = False

    @property
    def command(self) -> list[str]:
        """The control plane's command line."""
        given: list[tuple[str, object]] = [
            ("--data", self.home.path),
            ("--config", self.config and self.config.absolute()),
            ("--host", self.host),
            ("--port", self.port),
            ("--objects", self.objects),
            ("--database", self.database),
            ("--log-format", self.log_format),
            ("--otlp-endpoint", self.otlp_endpoint),
            *(("--encryption-key", place) for place in self.encryption_keys),
        ]
        options = [
            word for name, value in given if value is not None for word in (name, f"{value}")
        ]
        required = ["--encryption-required"] if self.encryption_required else []
        return [sys.executable, "-m", MODULE, *options, *required]


def require_installed() -> None:
    """Raise LocalError with the command to run when the control plane is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalError(f"the platform is not installed ({missing[0]} is missing): {REMEDY}")


def in_foreground(start: Start) -> subprocess.Popen[bytes]:
    """Start it with its output on our standard error.

    It gets a process group of its own, so that Ctrl-C reaches it once, through us.
    """
    return subprocess.Popen(
        start.command, stdin=subprocess.DEVNULL, stdout=STDERR, stderr=STDERR, process_group=0
    )


def detached(start: Start) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, with its output at the end of the log file."""
    with start.home.log_file.open("ab") as log:
        return subprocess.Popen(
            start.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def release(process: subprocess.Popen[bytes]) -> None:
    """Let go of a detached one: it outlives us, and nobody here will wait for its end."""
    process.returncode = 0


def abandon(process: subprocess.Popen[bytes]) -> None:
    """End one that did not become ready."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
