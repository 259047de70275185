"""The unmodified `openai` client, pointed at the platform."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field
from tests.e2e.platform import PARIS, Platform

MESSAGES = [{"role": "user", "content": PARIS}]


@pytest.fixture(scope="module")
def client(platform: Platform, realtime: str) -> Iterator[openai.OpenAI]:
    with platform.openai() as client:
        yield client


def test_chat_answers_with_usage(client: openai.OpenAI, realtime: str):
    answer = client.chat.completions.create(
        model=realtime, messages=MESSAGES, temperature=0, max_tokens=32
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_a_stream_says_the_same_and_ends_with_usage_when_asked(
    client: openai.OpenAI, realtime: str
):
    whole = client.chat.completions.create(
        model=realtime, messages=MESSAGES, temperature=0, max_tokens=24
    )
    chunks = list(
        client.chat.completions.create(
            model=realtime,
            messages=MESSAGES,
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_without_the_option_carries_no_usage(client: openai.OpenAI, realtime: str):
    chunks = list(
        client.chat.completions.create(
            model=realtime, messages=MESSAGES, max_tokens=4, temperature=0, stream=True
        )
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_completions_continue_a_prompt(client: openai.OpenAI, realtime: str):
    answer = client.completions.create(
        model=realtime, prompt="The capital of France is", max_tokens=4, temperature=0
    )
    assert "Paris" in answer.choices[0].text


def test_embeddings_of_like_sentences_are_near(
    platform: Platform, client: openai.OpenAI, minilm: str
):
    platform.cli(
        "deploy", minilm, "--name", "vectors", "--mode", "realtime", "--task", "embed", "--wait"
    )
    sentences = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose."]
    data = client.embeddings.create(model="vectors", input=sentences).data
    cat, kitten, rates = (item.embedding for item in data)
    assert len(cat) == 384
    assert _dot(cat, cat) == pytest.approx(1.0, abs=1e-3)
    assert _dot(cat, kitten) > 0.4 > _dot(cat, rates)
    platform.cli("delete", "vectors", "--wait")


class City(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    river: Literal["Seine", "Thames"]


def test_an_answer_is_parsed_into_a_pydantic_model(client: openai.OpenAI, realtime: str):
    answer = client.chat.completions.parse(
        model=realtime, messages=MESSAGES, response_format=City, temperature=0, max_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_a_model_streams_into_a_pydantic_model(client: openai.OpenAI, realtime: str):
    asked = {"model": realtime, "messages": MESSAGES, "temperature": 0, "max_tokens": 60}
    with client.chat.completions.stream(**asked, response_format=City) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


def test_models_are_the_deployments(client: openai.OpenAI, realtime: str):
    assert realtime in [model.id for model in client.models.list()]
    assert client.models.retrieve(realtime).id == realtime


def test_files_and_batches(client: openai.OpenAI, realtime: str):
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": realtime, "messages": MESSAGES, "max_tokens": 12, "temperature": 0},
    }
    choice = {**line, "custom_id": "two", "body": {**line["body"], "guided_choice": ["Rome"]}}
    content = (json.dumps(line) + "\n" + json.dumps(choice) + "\nnot json\n").encode()
    uploaded = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert uploaded.bytes == len(content)
    assert client.files.retrieve(uploaded.id).filename == "in.jsonl"
    assert client.files.content(uploaded.id).content == content
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"purpose": "test"},
    )
    batch = _finished(client, batch.id)
    assert batch.status == "completed"
    assert batch.metadata == {"purpose": "test"}
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    answers = {}
    for made in client.files.content(batch.output_file_id).text.splitlines():
        answer = json.loads(made)
        message = answer["response"]["body"]["choices"][0]["message"]
        answers[answer["custom_id"]] = message["content"]
    assert "Paris" in answers["one"]
    assert answers["two"] == "Rome"
    assert len(client.files.content(batch.error_file_id).text.splitlines()) == 1
    assert batch.id in [b.id for b in client.batches.list()]
    assert client.files.delete(uploaded.id).deleted


def test_a_wrong_key_is_an_authentication_error(platform: Platform, realtime: str):
    with (
        platform.openai(api_key="tg_wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError, match="nowhere") as caught:
        client.chat.completions.create(model="nowhere", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_a_bad_parameter_is_a_bad_request_that_names_it(client: openai.OpenAI, realtime: str):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=realtime, messages=MESSAGES, temperature=9)
    assert caught.value.param == "temperature"


def test_a_parameter_that_is_not_honoured_is_refused_by_name(client: openai.OpenAI, realtime: str):
    with pytest.raises(openai.BadRequestError, match="reasoning_effort") as caught:
        client.chat.completions.create(model=realtime, messages=MESSAGES, reasoning_effort="low")
    assert caught.value.code == "unsupported_parameter"


def test_a_prompt_beyond_the_context_is_a_bad_request(client: openai.OpenAI, realtime: str):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=realtime, prompt="word " * 9000, max_tokens=4)
    assert caught.value.code == "context_length_exceeded"


def test_a_key_over_its_rate_is_told_when_to_come_again(platform: Platform, realtime: str):
    key = platform.cli_json("keys", "create", "slow", "--rpm", "1")["key"]
    with platform.openai(api_key=key) as limited:
        limited.chat.completions.create(model=realtime, messages=MESSAGES, max_tokens=1)
        with pytest.raises(openai.RateLimitError) as caught:
            limited.chat.completions.create(model=realtime, messages=MESSAGES, max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "1"


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _finished(client: openai.OpenAI, batch_id: str) -> openai.types.Batch:
    deadline = time.monotonic() + 120
    while True:
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        assert time.monotonic() < deadline, batch
        time.sleep(0.3)
