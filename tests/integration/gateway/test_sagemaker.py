"""Replicas behind SageMaker's runtime API, as callers of the gateway see them.

SageMaker is a double here: its frames, its signatures and its refusals are as documented, and it
checks what it can; a real account is the only proof.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tests.aws_double.runtime import Component, Copy, Runtime
from tests.aws_double.signature import KEY_ID, REGION, SECRET

from tidegate.spec import Task
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

CHAT = "/v1/chat/completions"
URL = f"sagemaker://{REGION}/tidegate-smol/tidegate-smol"


@pytest.fixture
async def runtime(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    double, app = Runtime(), web.Application()
    double.routes(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    yield double
    await runner.cleanup()


@pytest.fixture
def served(platform: Any, runtime: Runtime) -> Any:
    """Makes `smol` one ready copy that answers by a script."""

    async def serve(script: Any, copies: int = 1) -> Any:
        platform.deploy()
        replica = await platform.replica(script)
        copy = Copy(replica.url, replica.token)
        runtime.components["tidegate-smol"] = Component("tidegate-smol", [copy] * copies)
        publish(platform)
        return replica

    return serve


def publish(platform: Any) -> None:
    platform.services.endpoints.publish("dep_smol", [Endpoint("rep_a", URL, "", capacity=4)])


async def test_an_answer_comes_through_with_whose_request_it_is(
    platform: Any, runtime: Runtime, served: Any
) -> None:
    replica = await served(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(), headers={"x-request-id": "req:1"})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Paris"
    assert replica.asked[0]["messages"] == platform.chat()["messages"]
    assert runtime.asked == [
        {"path": CHAT, "project": DEFAULT_PROJECT, "priority": "0", "request_id": "req:1"}
    ]


async def test_a_stream_comes_piece_by_piece(platform: Any, served: Any) -> None:
    more = asyncio.Event()
    chunk = platform.chunk
    await served(
        platform.Script.stream(chunk("Pa"), more, chunk("ris"), platform.USAGE, platform.DONE)
    )
    asked = platform.chat(stream=True)
    async with platform.client() as client, client.stream("POST", CHAT, json=asked) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if "Pa" in line:
                break
        more.set()
        rest = [line async for line in lines]
    assert any("ris" in line for line in rest)
    assert rest[-2] == "data: [DONE]"


async def test_what_the_model_refuses_is_answered_in_its_own_words(
    platform: Any, served: Any
) -> None:
    own = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context"}}
    await served(platform.Script.json(own, status=400))
    async with platform.client() as client:
        for body in (platform.chat(), platform.chat(stream=True)):
            answer = await client.post(CHAT, json=body)
            assert (answer.status_code, answer.json()) == (400, own)


async def test_a_component_without_a_copy_holds_the_request_until_there_is_one(
    platform: Any, runtime: Runtime, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_controlplane.gateway.forward.FULL_S", 0.02)
    await served(platform.Script.json(platform.COMPLETION))
    copies = runtime.components["tidegate-smol"].copies
    ready = [copies.pop()]
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await asyncio.sleep(0.2)
        assert not asking.done()
        copies += ready
        assert (await asking).status_code == 200


@pytest.mark.parametrize(
    "kind", ["ModelNotReadyException", "ThrottlingException", "ServiceUnavailable"]
)
async def test_a_refusal_that_passes_is_waited_for(
    platform: Any, runtime: Runtime, served: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_controlplane.gateway.forward.FULL_S", 0.02)
    await served(platform.Script.json(platform.COMPLETION))
    runtime.refuses = (429, kind, "not now")
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await asyncio.sleep(0.1)
        assert not asking.done()
        runtime.refuses = None
        assert (await asking).status_code == 200


async def test_a_wrong_secret_is_the_platforms_fault_and_says_so(
    platform: Any, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    await served(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert answer.status_code == 502
    said = answer.json()["error"]["message"]
    assert "AWS refused the platform's credentials (InvalidSignatureException)" in said


async def test_an_answer_in_one_piece_may_take_as_long_as_a_stream(
    platform: Any, runtime: Runtime, served: Any
) -> None:
    runtime.answer_s = 0.05
    chunk = platform.chunk
    parts = (chunk("Pa"), 0.3, chunk("ris"), platform.USAGE, platform.DONE)
    replica = await served(platform.Script.stream(*parts))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Paris"
    assert answer.json()["usage"]["completion_tokens"] == 2
    assert replica.asked[0]["stream"] is True


async def test_a_stream_that_says_an_error_is_an_error_in_one_piece(
    platform: Any, served: Any
) -> None:
    said = {"error": {"message": "out of memory", "type": "server_error", "code": "oom"}}
    await served(platform.Script.stream(platform.chunk("Pa"), platform.event(said)))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert (answer.status_code, answer.json()) == (500, said)


async def test_a_stream_without_its_end_is_no_answer_in_one_piece(
    platform: Any, served: Any
) -> None:
    await served(platform.Script.stream(platform.chunk("Pa")))
    async with platform.client() as client:
        assert (await client.post(CHAT, json=platform.chat())).status_code == 502


async def test_sagemakers_own_time_limits_say_what_to_do(
    platform: Any, runtime: Runtime, served: Any
) -> None:
    never = asyncio.Event()
    runtime.answer_s = runtime.stream_s = 0.05
    await served(platform.Script.stream(platform.chunk("Pa"), never))
    platform.deploy("embedder", task=Task.EMBED)
    platform.services.endpoints.publish("dep_embedder", [Endpoint("rep_b", URL, "", capacity=4)])
    async with platform.client() as client:
        asked = {"model": "embedder", "input": "x"}
        whole = await client.post("/v1/embeddings", json=asked)
        assert whole.status_code == 504
        assert "60 s for an answer in one piece" in whole.json()["error"]["message"]
        answer = await client.post(CHAT, json=platform.chat())
        assert answer.status_code == 504
        assert "8 minutes; ask for fewer tokens" in answer.json()["error"]["message"]
        streamed = await client.post(CHAT, json=platform.chat(stream=True))
    last = streamed.text.strip().split("\n\n")[-1]
    assert "8 minutes" in json.loads(last.removeprefix("data: "))["error"]["message"]


async def test_a_copy_that_dies_in_the_middle_ends_the_stream_with_an_error(
    platform: Any, served: Any
) -> None:
    await served(platform.Script.stream(platform.chunk("Pa"), platform.Dies()))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(stream=True))
    assert "Pa" in answer.text
    last = answer.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "replica_failed"


async def test_a_client_that_leaves_ends_the_work_behind_sagemaker(
    platform: Any, served: Any
) -> None:
    replica = await served(platform.Script.stream(platform.chunk("Pa"), asyncio.Event()))
    asked = platform.chat(stream=True)
    async with platform.client() as client, client.stream("POST", CHAT, json=asked) as answer:
        async for line in answer.aiter_lines():
            if "Pa" in line:
                break
    async with asyncio.timeout(60):
        await replica.was_left.wait()
