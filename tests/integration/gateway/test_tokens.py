"""Tokens through the gateway, with replicas that do what a test tells them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tidegate.spec import Mode, Task
from tidegate_controlplane.domain.routing import BYTES_PER_TOKEN, OutputMean

TOKENIZE, DETOKENIZE = "/v1/tokenize", "/v1/detokenize"
CHAT = "/v1/chat/completions"
BODIES: dict[str, dict[str, Any]] = {TOKENIZE: {"prompt": "hi"}, DETOKENIZE: {"tokens": [1, 2]}}
MADE = {"count": 2, "max_model_len": 8, "tokens": [1, 2], "token_strs": None}


def body(path: str, model: str = "smol") -> dict[str, Any]:
    return {"model": model, **BODIES[path]}


@pytest.mark.parametrize("path", [TOKENIZE, DETOKENIZE])
async def test_they_are_asked_of_a_replica_of_any_task_and_of_its_adapters(
    platform: Any, path: str
) -> None:
    replica = await platform.ready(platform.Script.json(MADE))
    platform.deploy(adapters={"poet": "/adapters/poet"})
    platform.deploy("vectors", task=Task.EMBED)
    platform.deploy("judge", task=Task.RERANK)
    for name in ("vectors", "judge"):
        platform.publish(replica, deployment=f"dep_{name}")
    async with platform.client() as client:
        for model in ("smol", "vectors", "judge", "smol:poet"):
            answer = await client.post(path, json=body(path, model))
            assert (answer.status_code, answer.json()) == (200, MADE)
    assert replica.paths == [path] * 3 + ["/adapters", path]
    assert replica.asked[0] == body(path)


async def test_they_use_no_tokens_but_a_request_of_the_key(platform: Any) -> None:
    await platform.ready(platform.Script.json(MADE))
    key = await platform.make_key(requests_per_minute=2, tokens_per_minute=100)
    async with platform.client(key) as client:
        for path in (TOKENIZE, DETOKENIZE):
            answer = await client.post(path, json=body(path))
            assert answer.headers["x-ratelimit-remaining-tokens"] == "100"
        assert (await client.post(TOKENIZE, json=body(TOKENIZE))).status_code == 429
    async with platform.client("tg_wrong") as client:
        assert (await client.post(TOKENIZE, json=body(TOKENIZE))).status_code == 401
    await platform.services.usage.flush()
    (used,) = (await platform.services.usage.summary("prj_default", None, 10)).data
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (2, 0, 0)


async def test_they_are_no_work_and_say_nothing_of_how_long_answers_are(platform: Any) -> None:
    await platform.ready(platform.Script.json(MADE))
    chat = json.dumps(platform.chat()).encode()
    async with platform.client() as client:
        for path in (TOKENIZE, DETOKENIZE):
            await client.post(path, json=body(path))
        arrived = platform.demand().arrived_tokens
        assert arrived == 2, "a request is never less than one"
        await client.post(CHAT, content=chat)
    expected = len(chat) // BYTES_PER_TOKEN + OutputMean().expected_tokens(None)
    assert platform.demand().arrived_tokens - arrived == expected


async def test_they_are_held_until_a_replica_is_there(platform: Any) -> None:
    platform.deploy()
    replica = await platform.replica(platform.Script.json(MADE))
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(TOKENIZE, json=body(TOKENIZE)))
        while not platform.demand().held:
            await asyncio.sleep(0.005)
        platform.publish(replica)
        assert (await asking).json() == MADE


async def test_what_is_wrong_is_refused_before_anything_is_woken(platform: Any) -> None:
    platform.deploy()
    platform.deploy("nights", mode=Mode.BATCH)
    for fields, status, param, code in (
        ({"model": "nope", "prompt": "a"}, 404, "model", "model_not_found"),
        ({"model": "nights", "prompt": "a"}, 400, "model", "wrong_mode"),
        ({"model": "smol"}, 400, "prompt", "invalid_value"),
        ({"model": "smol", "prompt": "a", "stream": True}, 400, "stream", "unsupported_parameter"),
    ):
        async with platform.client() as client:
            answer = await client.post(TOKENIZE, json=fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert platform.demand().held == 0
