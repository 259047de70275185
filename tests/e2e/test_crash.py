"""kill -9 of the control plane: no replica survives it, and no accepted work is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.platform import Platform, start

from tidegate_controlplane.provision.process import is_alive, start_ticks

LINES = 24


def test_a_batch_survives_kill_9_with_one_answer_per_custom_id(
    fragile: Platform, smollm2: str, tmp_path: Path
):
    fragile.cli("deploy", smollm2, "--name", "night", "--mode", "batch", "--wait")
    batch = fragile.cli_json("batch", "run", "night", str(_input(tmp_path)), "--no-wait")
    _until_some_lines_are_done(fragile, batch["id"])
    replicas = [(pid, start_ticks(pid)) for pid in _replica_pids(fragile, "night")]
    assert replicas

    os.kill(fragile.pid, signal.SIGKILL)
    _until_dead(replicas)
    restarted = start(fragile.data, fragile.config_home)

    assert restarted.api_key == fragile.api_key
    with restarted.openai() as client:
        deadline = time.monotonic() + 240
        while (found := client.batches.retrieve(batch["id"])).status != "completed":
            assert found.status in ("validating", "in_progress", "finalizing"), found
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        output = client.files.content(found.output_file_id).text
    assert found.request_counts.completed == LINES
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"line-{n}" for n in range(LINES)]


@pytest.mark.soak
def test_a_realtime_deployment_serves_again_after_kill_9(fragile: Platform, smollm2: str):
    fragile.cli("deploy", smollm2, "--name", "steady", "--mode", "realtime", "--wait")
    os.kill(fragile.pid, signal.SIGKILL)
    restarted = start(fragile.data, fragile.config_home)
    with restarted.openai() as client:
        answer = client.completions.create(
            model="steady", prompt="The capital of France is", max_tokens=4, temperature=0
        )
    assert "Paris" in answer.choices[0].text
    assert len(_replica_pids(restarted, "steady")) == 1


def _input(directory: Path) -> Path:
    path = directory / "in.jsonl"
    with path.open("w") as file:
        for n in range(LINES):
            body = {
                "model": "night",
                "messages": [{"role": "user", "content": f"Count to {n + 10}."}],
                "max_tokens": 48,
                "temperature": 0,
            }
            line = {
                "custom_id": f"line-{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
            file.write(json.dumps(line) + "\n")
    return path


def _until_some_lines_are_done(platform: Platform, batch_id: str) -> None:
    deadline = time.monotonic() + 120
    with platform.openai() as client:
        while not (done := client.batches.retrieve(batch_id).request_counts.completed):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert done < LINES, "too quick to be interrupted: make the batch longer"


def _replica_pids(platform: Platform, name: str) -> list[int]:
    with platform.http() as http:
        found = http.get(f"/api/v1/deployments/{name}/replicas", params={"limit": 100}).json()
    return [r["pid"] for r in found["data"] if r["phase"] in ("starting", "loading", "ready")]


def _until_dead(replicas: list[tuple[int, int | None]]) -> None:
    deadline = time.monotonic() + 60
    while any(began and is_alive(pid, began) for pid, began in replicas):
        assert time.monotonic() < deadline, "a replica outlived its control plane"
        time.sleep(0.05)
