"""Start the control plane as a child process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass

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

    `objects` is an `s3://bucket/prefix` for payloads and results, instead of the directory;
    `otlp_endpoint` is where traces go, if not where the environment says; `input_buckets` are
    those that requests may name in `input_uri`.
    """

    home: Home
    host: str
    port: int
    objects: str | None = None
    log_format: LogFormat = "json"
    otlp_endpoint: str | None = None
    input_buckets: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The control plane's command line."""
        where = ["--data", str(self.home.path), "--host", self.host, "--port", str(self.port)]
        objects = ["--objects", self.objects] if self.objects else []
        logs = ["--log-format", self.log_format] if self.log_format != "json" else []
        traces = ["--otlp-endpoint", self.otlp_endpoint] if self.otlp_endpoint else []
        inputs = [part for name in self.input_buckets for part in ("--input-bucket", name)]
        return [sys.executable, "-m", MODULE, *where, *objects, *inputs, *logs, *traces]


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
