"""Replicas that die or hang under real requests: another answers, or the stream says what happened.

Two replicas of the real model serve; each test harms one of them, and the reconciler replaces it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.e2e.platform import PARIS, Platform

LONG = "The tide comes in and the tide goes out. " * 250
SPEC = {
    "name": "pair",
    "mode": "realtime",
    "scaling": {"min_replicas": 2, "max_replicas": 2},
    "runtime": {"context_tokens": 4096, "kv_cache": "128MiB"},
}


@pytest.fixture(scope="module")
def pair(platform: Platform, realtime: str, smollm2: str) -> Iterator[Platform]:
    """The platform, with the deployment `pair` of two replicas: only these are harmed."""
    with platform.http() as http:
        answer = http.put("/api/v1/deployments/pair", json={**SPEC, "model": smollm2})
        assert answer.is_success, answer.text
        yield platform
        assert http.delete("/api/v1/deployments/pair").is_success


def replicas(http: httpx.Client) -> list[dict[str, Any]]:
    found = http.get("/api/v1/deployments/pair/replicas").json()["data"]
    return [replica for replica in found if replica["phase"] == "ready"]


def both_ready(http: httpx.Client) -> list[dict[str, Any]]:
    give_up = time.monotonic() + 300
    while len(found := replicas(http)) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return found


def busy_one(http: httpx.Client) -> int:
    """The pid of the replica that has a request."""
    give_up = time.monotonic() + 60
    while not (found := [each for each in replicas(http) if each["in_flight"]]):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return int(found[0]["pid"])


def ask(http: httpx.Client, prompt: str, max_tokens: int = 4) -> httpx.Response:
    body = {"model": "pair", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    return http.post("/v1/completions", json=body)


def test_one_that_is_killed_before_the_first_byte_is_answered_for_by_the_other(
    pair: Platform,
) -> None:
    with pair.http() as http, ThreadPoolExecutor() as pool:
        both_ready(http)
        waiting = pool.submit(ask, http, LONG)
        os.kill(busy_one(http), signal.SIGKILL)
        answer = waiting.result()
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_one_that_is_killed_in_mid_stream_ends_it_with_an_error_event(pair: Platform) -> None:
    body = {
        "model": "pair",
        "messages": [{"role": "user", "content": PARIS}],
        "stream": True,
        "max_tokens": 2000,
        "ignore_eos": True,
    }
    with pair.http() as http, pair.http() as other:
        both_ready(other)
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            seen = [next(lines) for _ in range(20)]
            os.kill(busy_one(other), signal.SIGKILL)
            seen += list(lines)
    data = [line.removeprefix("data: ") for line in seen if line.startswith("data: ")]
    assert json.loads(data[-1])["error"]["code"] == "replica_failed"
    assert "[DONE]" not in data


def test_one_that_accepts_and_never_answers_keeps_no_request(pair: Platform) -> None:
    with pair.http() as http, ThreadPoolExecutor(8) as pool:
        hung = int(both_ready(http)[0]["pid"])
        os.kill(hung, signal.SIGSTOP)
        answers = list(pool.map(lambda number: ask(http, f"{number} is"), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        both_ready(http)
        give_up = time.monotonic() + 60
        while hung in [each["pid"] for each in replicas(http)]:
            assert time.monotonic() < give_up
            time.sleep(0.1)
