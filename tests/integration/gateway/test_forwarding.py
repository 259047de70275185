from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.integration.gateway.conftest import BEATS

from tidegate_controlplane.errors import DeadlinePassed
from tidegate_controlplane.gateway.replica import Ask

CHAT = "/v1/chat/completions"


async def lines_of(response: httpx.Response) -> list[str]:
    return [line async for line in response.aiter_lines() if line]


async def take(lines: AsyncIterator[str], number: int) -> AsyncIterator[str]:
    for _ in range(number):
        yield await anext(lines)


async def until(condition: Any, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_request_reaches_the_replica_byte_for_byte_with_the_replicas_own_token(
    platform: Any,
) -> None:
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    body = b'{"messages":[{"role":"user","content":"\\u00e9"}],   "model":"smol"}'
    async with platform.client() as client:
        answer = await client.post(CHAT, content=body, headers={"x-request-id": "mine-1"})
    assert answer.status_code == 200
    assert answer.json() == platform.COMPLETION
    assert answer.headers["x-request-id"] == "mine-1"
    assert replica.asked == [json.loads(body)]
    assert int(replica.headers[0]["content-length"]) == len(body)
    assert replica.headers[0]["authorization"] == "Bearer replica-token"
    assert replica.headers[0]["x-request-id"] == "mine-1"


async def test_a_replica_is_told_whose_request_it_is_whatever_the_client_says(
    platform: Any,
) -> None:
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    lie = {"x-tidegate-project": "another", "x-tidegate-priority": "-1"}
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat(), headers=lie)
    assert replica.headers[0]["x-tidegate-project"] == "prj_default"
    assert replica.headers[0]["x-tidegate-priority"] == "0"


async def test_a_refusal_of_the_replica_is_passed_on_unchanged(platform: Any) -> None:
    await platform.ready(platform.Script.error(400))
    async with platform.client() as client:
        for stream in (False, True):
            answer = await client.post(CHAT, json=platform.chat(stream=stream))
            assert answer.status_code == 400
            assert answer.json() == {"error": {"message": "no", "type": "x", "code": "no"}}


async def test_a_stream_is_passed_on_event_by_event(platform: Any) -> None:
    go_on = asyncio.Event()
    await platform.ready(
        platform.Script.stream(
            platform.chunk("Par"), go_on, platform.chunk("is"), platform.USAGE, platform.DONE
        )
    )
    async with (
        platform.client() as client,
        client.stream("POST", CHAT, json=platform.chat(stream=True)) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        async with asyncio.timeout(60):
            first = await anext(lines)
        assert "Par" in first
        go_on.set()
        rest = [line async for line in lines if line]
    assert "is" in rest[0]
    assert rest[-1] == "data: [DONE]"


async def test_usage_is_asked_for_but_shown_only_to_a_client_that_asked(platform: Any) -> None:
    replica = await platform.ready(
        platform.Script.stream(platform.chunk("Paris"), platform.USAGE, platform.DONE)
    )
    async with platform.client() as client:
        plain = await client.post(CHAT, json=platform.chat(stream=True))
        asking = await client.post(
            CHAT, json=platform.chat(stream=True, stream_options={"include_usage": True})
        )
    assert "usage" not in plain.text
    assert asking.content == platform.chunk("Paris") + platform.USAGE + platform.DONE
    assert [asked["stream_options"] for asked in replica.asked] == [{"include_usage": True}] * 2


async def test_what_was_used_is_in_the_book_at_once_and_after_a_flush(platform: Any) -> None:
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat())
        replica.script = platform.Script.stream(
            platform.chunk("Paris"), platform.USAGE, platform.DONE
        )
        await client.post(CHAT, json=platform.chat(stream=True))
    before = await platform.services.usage.summary("prj_default", None, 20)
    await platform.services.usage.flush()
    after = await platform.services.usage.summary("prj_default", None, 20)
    assert before == after
    assert [
        (u.deployment, u.requests, u.prompt_tokens, u.completion_tokens) for u in after.data
    ] == [("smol", 2, 14, 4)]


async def test_a_request_is_held_until_a_replica_is_published(platform: Any) -> None:
    platform.deploy()
    replica = await platform.replica(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: platform.demand().held == 1)
        assert platform.services.endpoints.wanted.is_set()
        platform.publish(replica)
        answer = await asking
    assert answer.json()["choices"][0]["message"]["content"] == "Paris"
    assert platform.demand().in_flight == 0


@BEATS
async def test_a_held_stream_gets_heartbeats_until_the_replica_answers(platform: Any) -> None:
    platform.deploy()
    answers = asyncio.Event()
    replica = await platform.replica(
        platform.Script.stream(answers, platform.chunk("Paris"), platform.USAGE, platform.DONE)
    )
    async with (
        platform.client() as client,
        client.stream("POST", CHAT, json=platform.chat(stream=True)) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert await anext(lines) == ": waiting"
        platform.publish(replica)
        await until(lambda: replica.running == 1)
        said = [line async for line in take(lines, 4) if line]
        assert said == [": waiting"] * 2, "while the replica has the request, too"
        answers.set()
        rest = [line async for line in lines if line]
    comments = [line for line in rest if line.startswith(":")]
    assert rest[: len(comments)] == comments
    assert [line for line in rest if not line.startswith(":")][-1] == "data: [DONE]"


@BEATS
async def test_a_held_stream_whose_replica_refuses_ends_in_an_error_event(platform: Any) -> None:
    platform.deploy()
    replica = await platform.replica(platform.Script.error(400))
    async with (
        platform.client() as client,
        client.stream("POST", CHAT, json=platform.chat(stream=True)) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        platform.publish(replica)
        rest = [line async for line in lines if line.startswith("data")]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "no"
    assert len(rest) == 1


@BEATS
async def test_a_held_stream_whose_deadline_passes_ends_in_an_error_event(platform: Any) -> None:
    platform.deploy()
    async with platform.client() as client:
        answer = await client.post(
            CHAT, json=platform.chat(stream=True), headers={"prefer": "wait=1"}
        )
    error = json.loads(answer.text.split("data: ")[1])["error"]
    assert answer.status_code == 200
    assert error["code"] == "deadline_passed"
    assert "[DONE]" not in answer.text


async def test_prefer_wait_bounds_the_hold(platform: Any) -> None:
    platform.deploy()
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(), headers={"prefer": "wait=1"})
        refused = await client.post(CHAT, json=platform.chat(), headers={"prefer": "wait=0"})
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_passed"
    assert refused.status_code == 400
    assert "wait" in refused.json()["error"]["message"]


async def test_a_full_hold_queue_answers_503_with_retry_after_to_streams_too(platform: Any) -> None:
    deployment = platform.deploy()
    platform.services.endpoints.publish(deployment, [], cold_start_s=3.2)
    async with platform.client() as client:
        held = [asyncio.create_task(client.post(CHAT, json=platform.chat())) for _ in range(2)]
        await until(lambda: platform.demand().held == 2)
        for stream in (False, True):
            answer = await client.post(CHAT, json=platform.chat(stream=stream))
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "4"
            assert answer.json()["error"]["code"] == "hold_queue_full"
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    await until(lambda: platform.demand().held == 0)


async def test_a_replica_that_fails_before_its_first_byte_is_replaced_by_another(
    platform: Any,
) -> None:
    platform.deploy()
    good = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    for bad_script in (
        platform.Script.error(503),
        platform.Script.error(502),
        platform.Script.error(401),
        platform.Script([b"Internal Server Error"], status=500, media_type="text/plain"),
        platform.Script([platform.Dies()]),
        platform.Script([b'{"id":', platform.Dies()]),
    ):
        bad = await platform.replica(bad_script, "rep_a")
        platform.publish(bad, good)
        async with platform.client() as client:
            answer = await client.post(CHAT, json=platform.chat())
        assert answer.status_code == 200, bad_script
        assert len(bad.asked) == 1
    assert platform.demand().in_flight == 0


async def test_a_stream_is_given_to_another_replica_before_its_first_byte(platform: Any) -> None:
    platform.deploy()
    script = platform.Script.stream(platform.chunk("Paris"), platform.USAGE, platform.DONE)
    good = await platform.replica(script, "rep_b")
    bad = await platform.replica(platform.Script.stream(platform.Dies()), "rep_a")
    nobody = await platform.replica(script, "rep_a")
    nobody.url = "http://127.0.0.1:1"
    async with platform.client() as client:
        for first in (bad, nobody):
            platform.publish(first, good)
            answer = await client.post(CHAT, json=platform.chat(stream=True))
            assert answer.status_code == 200
            assert answer.text.endswith("data: [DONE]\n\n")


async def test_two_replicas_that_fail_are_a_502(platform: Any) -> None:
    platform.deploy()
    replicas = [
        await platform.replica(platform.Script.error(503), name) for name in ("rep_a", "rep_b")
    ]
    platform.publish(*replicas)
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "server_error"
    assert [len(replica.asked) for replica in replicas] == [1, 1]


async def test_the_successor_of_an_only_replica_that_died_is_waited_for(platform: Any) -> None:
    dying = await platform.ready(platform.Script([platform.Dies()]))
    successor = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: dying.asked and platform.demand().in_flight == 0)
        platform.publish()
        await until(lambda: platform.demand().held == 1)
        platform.publish(successor)
        assert (await asking).status_code == 200
    assert len(dying.asked) == 1


async def test_leaving_a_stream_between_two_chunks_stops_the_replica(platform: Any) -> None:
    never = asyncio.Event()
    replica = await platform.ready(platform.Script.stream(platform.chunk("Par"), never))
    served = platform.services.catalog.get("prj_default", "smol")
    body = json.dumps(platform.chat(stream=True)).encode()
    deadline = platform.services.clock.monotonic() + 60
    async with platform.services.forwarder.stream(
        served, CHAT, body, deadline=deadline, request_id="req_1", ask=Ask()
    ) as upstream:
        assert platform.chunk("Par") == await anext(upstream.chunks)
    async with asyncio.timeout(60):
        await replica.was_left.wait()
    assert platform.demand().in_flight == 0


async def test_a_refusing_replica_is_not_kept_connected(platform: Any) -> None:
    never = asyncio.Event()
    refusing = await platform.ready(platform.Script([b"{", never], status=503))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert answer.status_code == 502
    async with asyncio.timeout(60):
        await refusing.was_left.wait()


async def test_a_replica_that_dies_mid_stream_ends_it_with_an_error_event_and_no_done(
    platform: Any,
) -> None:
    whole = platform.chunk("Par")
    await platform.ready(platform.Script.stream(whole, b'data: {"id":', 0.05, platform.Dies()))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(stream=True))
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert answer.status_code == 200
    assert len(events) == 2
    assert "Par" in events[0]
    assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "replica_failed"


async def test_a_stream_that_ends_without_done_is_said_to_be_cut(platform: Any) -> None:
    await platform.ready(platform.Script.stream(platform.chunk("Par")))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(stream=True))
    assert "replica_failed" in answer.text
    assert "[DONE]" not in answer.text


async def test_a_client_that_leaves_a_stream_stops_the_replica_at_once_and_is_accounted(
    platform: Any,
) -> None:
    never = asyncio.Event()
    replica = await platform.ready(
        platform.Script.stream(platform.chunk("Par"), platform.chunk("is"), never)
    )
    async with (
        platform.client() as client,
        client.stream("POST", CHAT, json=platform.chat(stream=True)) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        assert platform.demand().in_flight == 1
    async with asyncio.timeout(60):
        await replica.was_left.wait()
    await until(lambda: platform.demand().in_flight == 0)
    used = (await platform.services.usage.summary("prj_default", None, 20)).data[0]
    assert used.requests == 1
    assert used.completion_tokens == 2
    assert used.prompt_tokens > 0


async def test_a_client_that_leaves_before_the_answer_stops_the_replica_at_once(
    platform: Any,
) -> None:
    never = asyncio.Event()
    for stream in (False, True):
        replica = await platform.ready(platform.Script([never]))
        async with platform.client() as client:
            asking = asyncio.create_task(client.post(CHAT, json=platform.chat(stream=stream)))
            await until(lambda replica=replica: replica.running == 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(60):
            await replica.was_left.wait()
        await until(lambda: platform.demand().in_flight == 0)


async def test_a_client_that_leaves_while_held_is_no_longer_waited_for(platform: Any) -> None:
    platform.deploy()
    for stream in (False, True):
        async with platform.client() as client:
            asking = asyncio.create_task(client.post(CHAT, json=platform.chat(stream=stream)))
            await until(lambda: platform.demand().held == 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: platform.demand().held == 0)


async def test_an_answer_that_takes_too_long_is_a_504_and_is_not_tried_again(
    platform: Any,
) -> None:
    never = asyncio.Event()
    replica = await platform.ready(platform.Script([never]))
    served = platform.services.catalog.get("prj_default", "smol")
    now = platform.services.clock.monotonic()
    body = json.dumps(platform.chat()).encode()
    with pytest.raises(DeadlinePassed):
        await platform.services.forwarder.call(
            served, CHAT, body, deadline=now + 0.1, request_id="req_1"
        )
    assert len(replica.asked) == 1
    assert platform.demand().in_flight == 0
