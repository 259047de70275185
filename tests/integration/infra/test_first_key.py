"""A control plane, started as a platform's container starts it, is opened by the stack's key."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tidegate.protocol.api_keys import new_key
from tidegate_infra.components.platform.service import START

WITHIN_S = 60
KEY = new_key()


@contextmanager
def started(data: Path) -> Iterator[dict[str, str]]:
    """What the connection file says of a control plane that runs in the block."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TIDEGATE_PEPPER": base64.b64encode(bytes(range(32))).decode(),
        "TIDEGATE_SETTINGS": json.dumps({"shutdown_s": 1.0}),
        "TIDEGATE_PORT": "0",
        "TIDEGATE_ADMIN_KEY": KEY,
    }
    script = START.replace("/data", str(data)).replace("0.0.0.0", "127.0.0.1")
    with (data / "log").open("ab") as log:
        process = subprocess.Popen(["/bin/sh", "-c", script], env=environment, stderr=log)
    try:
        connection, deadline = data / "connection.json", time.monotonic() + WITHIN_S
        while not connection.exists():
            assert process.poll() is None, (data / "log").read_text()
            assert time.monotonic() < deadline, (data / "log").read_text()
            time.sleep(0.05)
        yield json.loads(connection.read_text())
        assert not any(KEY in text for text in _environments_below(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN_S)


def _environments_below(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield Path(f"/proc/{child}/environ").read_text()
            yield from _environments_below(int(child))


def test_the_key_of_the_stack_opens_a_platform_at_every_start(tmp_path: Path) -> None:
    for _ in range(2):  # the disk of a container goes with it; its database stays
        with started(tmp_path) as connection:
            assert connection["api_key"] == KEY
            answer = httpx.get(
                f"{connection['url']}/api/v1/api-keys",
                headers={"authorization": f"Bearer {KEY}"},
                trust_env=False,
            )
            assert [key["name"] for key in answer.json()["data"]] == ["given"]
        for name in ("connection.json", ".connection.json.former"):
            (tmp_path / name).unlink(missing_ok=True)
    assert KEY not in (tmp_path / "log").read_text()
