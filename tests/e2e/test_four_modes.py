"""The same real model answers through each mode, by the CLI alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.e2e.platform import PARIS, Platform


def test_realtime_is_ready_before_it_is_asked_and_answers(platform: Platform, realtime: str):
    status = platform.cli_json("status", realtime)
    assert status["phase"] == "ready"
    assert status["replicas"]["ready"] == 1
    assert "Paris" in platform.cli("chat", realtime, PARIS)


def test_serverless_is_deployed_at_zero_wakes_for_a_request_and_returns_to_zero(
    platform: Platform, smollm2: str
):
    platform.cli(
        "deploy", smollm2, "--name", "tide", "--mode", "serverless", "--idle-timeout", "2", "--wait"
    )
    assert platform.cli_json("status", "tide")["phase"] == "idle"

    assert "Paris" in platform.cli("chat", "tide", PARIS)

    deadline = time.monotonic() + 60
    while platform.cli_json("status", "tide")["phase"] != "idle":
        assert time.monotonic() < deadline, platform.cli("events", "tide")
        time.sleep(0.5)
    replicas = platform.cli_json("status", "tide")["replicas"]
    assert (replicas["starting"], replicas["ready"]) == (0, 0)
    reasons = [event["reason"] for event in _events(platform, "tide")]
    assert "Waking" in reasons
    platform.cli("delete", "tide", "--wait")


def test_async_takes_the_work_at_once_and_gives_the_result_later(platform: Platform, smollm2: str):
    platform.cli("deploy", smollm2, "--name", "queue", "--mode", "async", "--wait")
    accepted = platform.cli_json("invoke", "queue", PARIS, "--no-wait")
    assert accepted["status"] in ("queued", "running")
    answer = platform.cli("invoke", "queue", PARIS, "--wait")
    assert "Paris" in answer
    with platform.http() as http:
        refused = http.post(
            "/v1/chat/completions",
            json={"model": "queue", "messages": [{"role": "user", "content": "hi"}]},
        )
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "wrong_mode"
    platform.cli("delete", "queue", "--wait")


def test_batch_answers_each_line_of_a_file(platform: Platform, smollm2: str, tmp_path: Path):
    platform.cli("deploy", smollm2, "--name", "night", "--mode", "batch", "--wait")
    lines = [
        {
            "custom_id": f"line-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "night",
                "messages": [{"role": "user", "content": PARIS}],
                "max_tokens": 16,
                "temperature": 0,
            },
        }
        for n in range(4)
    ]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    platform.cli("batch", "run", "night", str(source), "--output", str(output), "--wait")
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in lines]
    for answer in answers:
        assert "Paris" in answer["response"]["body"]["choices"][0]["message"]["content"]
    platform.cli("delete", "night", "--wait")


def _events(platform: Platform, name: str) -> list[dict[str, str]]:
    with platform.http() as http:
        return http.get(f"/api/v1/deployments/{name}/events", params={"limit": 100}).json()["data"]
