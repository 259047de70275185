"""The `openai` package as its users have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from tests.integration.gateway.conftest import BEATS

from tidegate.spec import Mode, Task

HELLO: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def client(platform: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{platform.url}/v1", api_key=platform.key, max_retries=0
    ) as found:
        yield found


async def test_chat_is_answered(platform: Any, client: openai.AsyncOpenAI) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    answer = await client.chat.completions.create(model="smol", messages=HELLO)
    assert answer.choices[0].message.content == "Paris"


async def test_a_stream_with_usage_is_answered(platform: Any, client: openai.AsyncOpenAI) -> None:
    await platform.ready(
        platform.Script.stream(platform.chunk("Paris"), platform.USAGE, platform.DONE)
    )
    stream = await client.chat.completions.create(
        model="smol", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.content == "Paris"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 9


@BEATS
async def test_a_held_stream_is_answered_after_its_heartbeats(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    platform.deploy()
    stream = await client.chat.completions.create(model="smol", messages=HELLO, stream=True)
    replica = await platform.replica(
        platform.Script.stream(platform.chunk("Paris"), platform.USAGE, platform.DONE)
    )
    platform.publish(replica)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris"


async def test_a_stream_that_breaks_raises_api_error(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    await platform.ready(platform.Script.stream(platform.chunk("Par"), platform.Dies()))
    stream = await client.chat.completions.create(model="smol", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="middle of its answer"):
        _ = [chunk async for chunk in stream]


async def test_models_are_listed_and_found(platform: Any, client: openai.AsyncOpenAI) -> None:
    platform.deploy("smol")
    platform.deploy("embedder", task=Task.EMBED)
    listed = [model.id async for model in client.models.list()]
    assert listed == ["embedder", "smol"]
    assert (await client.models.retrieve("smol")).id == "smol"
    with pytest.raises(openai.NotFoundError, match="'org/none' does not exist"):
        await client.models.retrieve("org/none")


async def test_a_wrong_key_raises_authentication_error(platform: Any) -> None:
    wrong = platform.key[:-8] + "00000000"
    async with openai.AsyncOpenAI(base_url=f"{platform.url}/v1", api_key=wrong) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id is not None


async def test_a_key_without_the_role_raises_permission_denied(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(base_url=f"{platform.url}/api/v1").get("/version", cast_to=object)


async def test_an_unknown_model_raises_not_found_and_names_those_there_are(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    platform.deploy("smol")
    with pytest.raises(openai.NotFoundError, match=r"'gpt-none' does not exist.*smol") as caught:
        await client.chat.completions.create(model="gpt-none", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temperature": 9}, "invalid_value", "temperature"),
        ({"extra_body": {"tempreature": 1}}, "unsupported_parameter", "tempreature"),
        ({"n": 99}, "invalid_value", "n"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name_before_anything_is_woken(
    platform: Any, client: openai.AsyncOpenAI, fields: Any, code: str, param: str
) -> None:
    platform.deploy()
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="smol", messages=HELLO, **fields)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert not platform.services.endpoints.wanted.is_set()


@pytest.mark.parametrize(
    ("mode", "door"), [(Mode.ASYNC, "/v1/invocations"), (Mode.BATCH, "/v1/batches")]
)
async def test_a_mode_without_this_door_names_the_right_one(
    platform: Any, client: openai.AsyncOpenAI, mode: Mode, door: str
) -> None:
    platform.deploy("smol", mode)
    with pytest.raises(openai.BadRequestError, match=door) as caught:
        await client.chat.completions.create(model="smol", messages=HELLO)
    assert caught.value.code == "wrong_mode"


async def test_an_embedding_of_a_generating_model_is_refused(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    platform.deploy()
    with pytest.raises(openai.BadRequestError, match="chat/completions") as caught:
        await client.embeddings.create(model="smol", input="hi")
    assert caught.value.code == "wrong_task"


async def test_a_body_beyond_the_limit_is_413(platform: Any, client: openai.AsyncOpenAI) -> None:
    platform.deploy()
    with pytest.raises(openai.APIStatusError, match="65536 bytes") as caught:
        await client.completions.create(model="smol", prompt="x" * 3_000_000)
    assert caught.value.status_code == 413


async def test_a_used_up_quota_raises_rate_limit_error(platform: Any) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    key = await platform.make_key(requests_per_minute=1)
    async with openai.AsyncOpenAI(
        base_url=f"{platform.url}/v1", api_key=key, max_retries=0
    ) as client:
        await client.chat.completions.create(model="smol", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="smol", messages=HELLO)
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 0


async def test_replicas_that_fail_raise_internal_server_error(
    platform: Any, client: openai.AsyncOpenAI
) -> None:
    await platform.ready(platform.Script.error(503))
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="smol", messages=HELLO)
    assert caught.value.status_code == 502
