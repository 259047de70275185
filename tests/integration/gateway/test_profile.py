"""Profiles through the platform: a ready replica is found, asked and believed."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate_controlplane.gateway import profiler
from tidegate_controlplane.gateway.endpoints import Endpoint

PATH = "/api/v1/deployments/smol/profile"
PROFILE = {
    "summary": {
        "replica_id": "rep_a",
        "seconds": 0.5,
        "steps": 1,
        "operator_steps": 0,
        "rows_per_step": 1.0,
        "tokens_per_step": 1.0,
        "phases": [],
    },
    "trace": "H4sI",
}


async def asked(platform: Any, **body: Any) -> Any:
    async with platform.client(platform.admin_key) as client:
        return await client.post(PATH, json={"seconds": 0.5, **body})


async def test_a_ready_replica_is_asked_with_its_token_and_its_answer_is_passed_on(
    platform: Any,
) -> None:
    replica = await platform.ready(platform.Script.json(PROFILE))
    answer = await asked(platform)
    assert (answer.status_code, answer.json()) == (200, PROFILE)
    assert (replica.paths, replica.asked) == (["/profile"], [{"seconds": 0.5}])
    assert replica.headers[0]["authorization"] == "Bearer replica-token"


async def test_the_replica_that_is_named_is_asked_or_else_the_one_with_the_most_requests(
    platform: Any,
) -> None:
    deployment = platform.deploy()
    idle = await platform.replica(platform.Script.json(PROFILE), "rep_a")
    busy = await platform.replica(platform.Script.json(PROFILE), "rep_b")
    platform.publish(busy)
    async with platform.services.endpoints.acquire(deployment, deadline=1e12):
        platform.publish(idle, busy)
        assert (await asked(platform)).status_code == 200
        assert (len(idle.paths), len(busy.paths)) == (0, 1)
        assert (await asked(platform, replica="rep_a")).status_code == 200
        assert (len(idle.paths), len(busy.paths)) == (1, 1)
    unknown = await asked(platform, replica="rep_c")
    assert unknown.status_code == 404
    assert "has no ready replica 'rep_c'; ready are: rep_a, rep_b" in unknown.json()["detail"]


async def test_without_a_ready_replica_the_remedy_is_to_wake_one(platform: Any) -> None:
    platform.deploy()
    answer = await asked(platform)
    assert (answer.status_code, answer.json()["code"]) == (409, "no_ready_replica")
    assert "`tidegate wake smol` starts one" in answer.json()["detail"]


async def test_a_deployment_that_is_not_there_and_a_key_for_inference_only_are_refused(
    platform: Any,
) -> None:
    assert (await asked(platform)).status_code == 404
    async with platform.client() as client:
        assert (await client.post(PATH, json={})).status_code == 403


@pytest.mark.parametrize("seconds", [0, -1, 61, "5"])
async def test_seconds_out_of_range_never_reach_a_replica(platform: Any, seconds: Any) -> None:
    replica = await platform.ready(platform.Script.json(PROFILE))
    answer = await asked(platform, seconds=seconds)
    assert answer.status_code in (400, 422)
    assert "seconds" in answer.text
    assert replica.paths == []


@pytest.mark.parametrize(("status", "seen"), [(409, 409), (400, 400), (404, 502), (503, 502)])
async def test_what_the_replica_refuses_is_refused_in_its_words(
    platform: Any, status: int, seen: int
) -> None:
    error = {"error": {"message": "a profile is running", "type": "x", "code": "profile_running"}}
    await platform.ready(platform.Script.json(error, status))
    answer = await asked(platform)
    assert (answer.status_code, answer.json()["code"]) == (seen, "profile_running")
    assert answer.json()["detail"] == "a profile is running"


async def test_a_replica_that_dies_or_never_ends_is_an_error_of_its_own(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await platform.ready(platform.Script([b"{", platform.Dies()]))
    answer = await asked(platform)
    assert answer.status_code == 502
    assert "rep_a ended before its profile did" in answer.json()["detail"]
    monkeypatch.setattr(profiler, "TELLING_S", 0.0)
    replica.script = platform.Script([5.0, b"{}"])
    assert (await asked(platform, seconds=0.05)).status_code == 504


async def test_a_profile_beyond_its_bound_is_not_held_in_memory(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiler, "MAX_PROFILE_BYTES", 100)
    await platform.ready(platform.Script([b"x" * 60, b"x" * 60, 5.0]))
    answer = await asked(platform)
    assert answer.status_code == 502
    assert "larger than 100 bytes; profile fewer seconds" in answer.json()["detail"]


async def test_behind_sagemaker_there_is_no_way_to_a_profile(platform: Any) -> None:
    deployment = platform.deploy()
    endpoint = Endpoint("rep_s", "sagemaker://eu-west-1/smol/smol", "t", capacity=4)
    platform.services.endpoints.publish(deployment, [endpoint])
    answer = await asked(platform)
    assert (answer.status_code, answer.json()["code"]) == (409, "replica_not_reached")
    assert "rep_s runs behind SageMaker" in answer.json()["detail"]
