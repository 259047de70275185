"""`tidegate down`: whoever is held is told, and what was accepted is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.platform import PARIS, Platform, start, stop


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose first replica takes long, since nothing is in its cache."""
    running = start(tmp_path / "data", tmp_path / "config")
    yield running
    stop(running)


def until_held(http: httpx.Client) -> None:
    give_up = time.monotonic() + 60
    while 'tidegate_requests_held{deployment="cold"} 1.0' not in http.get("/metrics").text:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_held_request_is_told_that_the_platform_stops_and_durable_work_waits_for_the_next(
    cold: Platform, smollm2: str
):
    cold.cli("deploy", smollm2, "--name", "cold", "--mode", "serverless", "--wait")
    body = {"model": "cold", "messages": [{"role": "user", "content": PARIS}]}
    answers: list[httpx.Response] = []
    with cold.http() as http:
        kept = http.post("/v1/invocations", json=body).json()["id"]
        held = threading.Thread(
            target=lambda: answers.append(http.post("/v1/chat/completions", json=body))
        )
        held.start()
        until_held(http)
        cold.cli("down", "--data", str(cold.data))
        held.join(timeout=60)

    (answer,) = answers
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "stopping"
    assert int(answer.headers["retry-after"]) >= 1
    restarted = start(cold.data, cold.config_home)
    with restarted.http() as http:
        status = http.get(f"/v1/invocations/{kept}").json()["status"]
    assert status in ("queued", "running", "succeeded")
