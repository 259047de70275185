"""A platform of its own for a benchmark: the real control plane with the bundled model."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_S = 60.0
END_S = 60.0
REST_S = 60.0
MODEL = "smollm2"


@dataclass(frozen=True)
class Platform:
    """A running control plane with one serverless deployment."""

    url: str
    api_key: str
    client: httpx.Client

    def state(self) -> dict[str, Any]:
        """The deployment as its API shows it."""
        found: dict[str, Any] = self.client.get(f"/api/v1/deployments/{MODEL}").json()
        return found

    def rest(self) -> None:
        """Wait until no replica runs. Raises TimeoutError."""
        give_up = time.monotonic() + REST_S
        while True:
            replicas = self.client.get(f"/api/v1/deployments/{MODEL}/replicas").json()["data"]
            ended = all(replica["phase"] in ("terminated", "failed") for replica in replicas)
            if ended and self.state()["phase"] == "idle":
                return
            if time.monotonic() > give_up:
                raise TimeoutError(f"the deployment did not come to rest: {self.state()}")
            time.sleep(0.05)


@contextlib.contextmanager
def running(gguf: Path, **scaling: Any) -> Iterator[Platform]:
    """A platform whose model has been built, at rest; ended with all that it started."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as data:
        arguments = ["tidegate_controlplane", "--data", data, "--port", "0"]
        with started(arguments, Path(data)) as connection:
            headers = {"authorization": f"Bearer {connection['api_key']}"}
            with httpx.Client(base_url=connection["url"], headers=headers, timeout=300) as client:
                platform = Platform(connection["url"], connection["api_key"], client)
                _deploy(platform, gguf, scaling)
                yield platform


@contextlib.contextmanager
def started(module: Sequence[str], data: Path) -> Iterator[dict[str, str]]:
    """Run a module that is a control plane with its data there: what it announces to clients.

    Raises RuntimeError when it does not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "log").open("w") as log:
        command = [sys.executable, "-m", *module]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        with ended(process):
            yield _announced(data, process)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a process when the block is left, kindly first."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced(data: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    path, give_up = data / "connection.json", time.monotonic() + START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > give_up:
            said = (data / "log").read_text()[-2000:]
            raise RuntimeError(f"the control plane did not start: {said}")
        time.sleep(0.05)
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _deploy(platform: Platform, gguf: Path, scaling: dict[str, Any]) -> None:
    """Declare the model, let its first start build the artifact, and let it come to rest."""
    spec = {
        "name": MODEL,
        "model": str(gguf),
        "mode": "serverless",
        "runtime": {"context_tokens": 2048},
        "scaling": {"idle_timeout_s": 0, **scaling},
    }
    platform.client.put(f"/api/v1/deployments/{MODEL}", json=spec).raise_for_status()
    platform.client.post(
        "/v1/completions", json={"model": MODEL, "prompt": "Paris is", "max_tokens": 1}
    ).raise_for_status()
    platform.rest()
