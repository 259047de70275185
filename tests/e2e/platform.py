"""A whole platform: the real CLI, control plane, replicas and model, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from tidegate import Client

TIDEGATE = str(Path(sys.executable).parent / "tidegate")
START_S = 180
PARIS = "What is the capital of France? Answer in one sentence."


@dataclass(frozen=True)
class Platform:
    """A running platform, reached as its users reach it."""

    data: Path
    url: str
    api_key: str
    config_home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "TIDEGATE_URL": self.url,
            "TIDEGATE_API_KEY": self.api_key,
            "XDG_CONFIG_HOME": str(self.config_home),
        }

    @property
    def pid(self) -> int:
        return int(json.loads((self.data / "controlplane.pid").read_text())["pid"])

    def cli(self, *arguments: str, expect: int = 0) -> str:
        """Run the CLI; returns what it printed to stdout."""
        done = run_cli(*arguments, env=self.environment)
        assert done.returncode == expect, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done.stdout if expect == 0 else done.stdout + done.stderr

    def cli_json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with Client(url=self.url, api_key=self.api_key) as client:
            yield client

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=START_S)

    def openai(self, api_key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=api_key or self.api_key,
            max_retries=0,
            timeout=START_S,
        )


def run_cli(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TIDEGATE, *arguments], env=env, text=True, capture_output=True, timeout=START_S
    )


def start(data: Path, config_home: Path, *more: str) -> Platform:
    """`tidegate up --detach` on a free port, and what it wrote."""
    env = {**os.environ, "XDG_CONFIG_HOME": str(config_home)}
    done = run_cli("up", "--data", str(data), "--port", "0", "--detach", *more, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    connection = json.loads((data / "connection.json").read_text())
    return Platform(data, connection["url"], connection["api_key"], config_home)


def stop(platform: Platform) -> None:
    run_cli("down", "--data", str(platform.data), env=platform.environment)
