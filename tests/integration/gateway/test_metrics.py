"""What `/metrics` tells of requests, beside what was asked and answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

CHAT = "/v1/chat/completions"
LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "tidegate",
    "gen_ai_request_model": "smol",
}


def sample(platform: Any, name: str, **labels: str) -> float:
    found: float | None = platform.services.watch.metrics.registry.get_sample_value(name, labels)
    return found or 0.0


def durations(platform: Any, error: str = "") -> float:
    name = "gen_ai_client_operation_duration_seconds_count"
    return sample(platform, name, **LABELS, error_type=error)


def tokens(platform: Any, kind: str) -> float:
    name = "gen_ai_client_token_usage_sum"
    return sample(platform, name, **LABELS, gen_ai_token_type=kind)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_counts_once_with_the_tokens_that_the_replica_told(
    platform: Any, stream: bool
) -> None:
    events = (platform.chunk("Paris"), platform.USAGE, platform.DONE)
    whole = platform.Script.json(platform.COMPLETION)
    await platform.ready(platform.Script.stream(*events) if stream else whole)
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat(stream=stream))
    await until(lambda: durations(platform))
    assert durations(platform) == 1
    assert (tokens(platform, "input"), tokens(platform, "output")) == (7, 2)
    name = "gen_ai_server_time_to_first_token_seconds_count"
    assert sample(platform, name, **LABELS) == (1 if stream else 0)
    assert sample(platform, "tidegate_attempts_total", deployment="smol", outcome="answered") == 1


async def test_a_refusal_of_the_replica_is_an_error_of_its_status(platform: Any) -> None:
    await platform.ready(platform.Script.error(400))
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat())
    assert durations(platform, "400") == 1
    assert durations(platform) == 0


async def test_a_failed_attempt_and_its_retry_are_counted_apart(platform: Any) -> None:
    platform.deploy()
    good = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    dead = await platform.replica(platform.Script([platform.Dies()]), "rep_a")
    platform.publish(dead, good)
    async with platform.client() as client:
        assert (await client.post(CHAT, json=platform.chat())).status_code == 200
    attempts = "tidegate_attempts_total"
    assert sample(platform, attempts, deployment="smol", outcome="replica_failed") == 1
    assert sample(platform, attempts, deployment="smol", outcome="answered") == 1
    assert sample(platform, "tidegate_retries_total", deployment="smol") == 1


async def test_who_is_held_is_seen_while_held_and_timed_after(platform: Any) -> None:
    held = {"deployment": "smol"}
    deployment_id = platform.deploy()
    endpoints = platform.services.endpoints
    platform.services.watch.metrics.watch_demand(
        lambda: [("smol", endpoints.demand(deployment_id))]
    )
    replica = await platform.replica(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: sample(platform, "tidegate_requests_held", **held) == 1)
        platform.publish(replica)
        assert (await asking).status_code == 200
    assert sample(platform, "tidegate_requests_held", **held) == 0
    assert sample(platform, "tidegate_hold_seconds_count", **held) == 1
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat())
    assert sample(platform, "tidegate_hold_seconds_count", **held) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_who_is_not_held_is_counted_by_the_reason(platform: Any, stream: bool) -> None:
    platform.deploy()
    async with platform.client() as client:
        waiting = [asyncio.create_task(client.post(CHAT, json=platform.chat())) for _ in range(2)]
        await until(lambda: platform.demand().held == 2)
        refused = await client.post(CHAT, json=platform.chat(stream=stream))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert refused.status_code == 503
    name = "tidegate_hold_refused_total"
    assert sample(platform, name, deployment="smol", reason="hold_queue_full") == 1
    assert durations(platform, "hold_queue_full") == 1


async def test_a_stream_that_breaks_counts_as_failed_though_its_status_was_good(
    platform: Any,
) -> None:
    await platform.ready(platform.Script.stream(platform.chunk("Pa"), platform.Dies()))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(stream=True))
    assert answer.status_code == 200
    await until(lambda: durations(platform, "replica_failed"))


async def test_a_client_that_leaves_is_its_own_kind_of_error(platform: Any) -> None:
    await platform.ready(platform.Script.stream(platform.chunk("Pa"), 30.0))
    async with (
        platform.client() as client,
        client.stream("POST", CHAT, json=platform.chat(stream=True)) as answer,
    ):
        await anext(answer.aiter_lines())
    await until(lambda: durations(platform, "client_gone"))


async def test_only_an_admin_reads_the_numbers_and_finds_no_key_or_id_in_them(
    platform: Any,
) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client, platform.client(platform.admin_key) as admin:
        answer = await client.post(CHAT, json=platform.chat())
        assert (await client.get("/metrics")).status_code == 403
        numbers = await admin.get("/metrics")
    assert numbers.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'gen_ai_request_model="smol"' in numbers.text
    assert answer.headers["x-request-id"] not in numbers.text
    assert "key_" not in numbers.text


async def test_names_that_no_deployment_has_make_no_series(platform: Any) -> None:
    async with platform.client() as client, platform.client(platform.admin_key) as admin:
        for n in range(3):
            await client.post(CHAT, json=platform.chat(model=f"made-up-{n}"))
        assert "made-up" not in (await admin.get("/metrics")).text
