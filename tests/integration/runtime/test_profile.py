"""A profile of a real replica while it answers."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tidegate.protocol.profile import EngineProfile

COMPLETION = {"model": "test-model", "prompt": "Once upon a time", "max_tokens": 4}


def test_a_replica_is_profiled_while_it_answers_and_one_profile_at_a_time(real: Any) -> None:
    def profiled(_: int) -> httpx.Response:
        with real.client() as client:
            return client.post("/profile", json={"seconds": 2})

    with real.client() as client, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(profiled, n) for n in range(2)]
        while client.get("/readyz").json()["in_flight"] == 0:
            pass
        while not all(one.done() for one in asked):  # the engine waits between two of them
            assert client.post("/v1/completions", json=COMPLETION).status_code == 200
        made, refused = sorted((one.result() for one in asked), key=lambda one: one.status_code)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "profile_running")
    profile = EngineProfile.model_validate_json(made.content)
    shares = {each.phase: each.share for each in profile.summary.phases}
    assert profile.summary.steps + profile.summary.operator_steps >= 4
    assert shares["forward"] > shares["choosing"] > 0
    assert abs(sum(shares.values()) - 1) < 1e-6
    trace = json.loads(gzip.decompress(profile.trace_gzip))
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"step", "forward", "waiting"} <= names
    assert all(json.loads(line) for line in real.log_path.read_text().splitlines())


def test_seconds_out_of_range_and_a_stranger_are_refused(real: Any) -> None:
    with real.client() as client:
        for seconds in (0, 61, "5"):
            refused = client.post("/profile", json={"seconds": seconds})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seconds")
        stranger = client.post("/profile", json={}, headers={"authorization": "Bearer x"})
    assert stranger.status_code == 401
