"""A replica process with the real model, over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from itertools import dropwhile
from typing import Any

import httpx
import openai
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
STORIES = [
    [{"role": "user", "content": f"Tell me one sentence about {thing}."}]
    for thing in ("cats", "rain", "Rome", "bread", "the moon", "a train", "music", "the sea")
]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "test-model", "messages": FRANCE, "temperature": 0, "max_tokens": 24, **fields}


def complete(**fields: Any) -> dict[str, Any]:
    return {"model": "test-model", "prompt": "The capital of France is", "temperature": 0, **fields}


@pytest.fixture
def client(real: Any) -> Any:
    with real.client() as client:
        yield client


def answer(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    made = response.json()
    assert isinstance(made, dict)
    return made


def events(client: httpx.Client, body: dict[str, Any]) -> list[Any]:
    """The data of every event; the last is the text [DONE]."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    assert text.endswith("\n\n")
    data = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
    return [json.loads(item) for item in data[:-1]] + [data[-1]]


def refused(client: httpx.Client, path: str, status: int, **options: Any) -> dict[str, Any]:
    response = client.post(path, **options)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error, dict)
    return error


def test_the_capital_of_france_is_paris(client: httpx.Client) -> None:
    made = answer(client, chat())
    assert made["choices"][0]["message"]["content"] == "The capital of France is Paris."
    assert made["choices"][0]["finish_reason"] == "stop"
    cached = made["usage"].pop("prompt_tokens_details")["cached_tokens"]
    assert cached in (0, 16, 32), "others asked it, or what begins like it"
    assert made["usage"] == {"prompt_tokens": 37, "completion_tokens": 8, "total_tokens": 45}


def test_a_stream_says_what_the_whole_answer_says(client: httpx.Client) -> None:
    *chunks, done = events(client, chat(stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert text == "The capital of France is Paris."
    assert chunks[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stream_without_usage_does_not_mention_it(client: httpx.Client) -> None:
    *chunks, _ = events(client, chat())
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


async def test_company_in_the_batch_changes_no_greedy_token(real: Any) -> None:
    async with real.async_client() as client:

        async def story(messages: Any) -> str:
            body = chat(messages=messages)
            made = (await client.post("/v1/chat/completions", json=body)).json()
            return str(made["choices"][0]["message"]["content"])

        alone = [await story(messages) for messages in STORIES]
        together = await asyncio.gather(*(story(messages) for messages in STORIES))
    assert together == alone
    assert len(set(alone)) == len(STORIES)


def test_n_choices_with_a_seed_differ_and_come_again(client: httpx.Client) -> None:
    body = chat(messages=STORIES[0], n=2, temperature=1.0, seed=7, max_tokens=16)
    first, second = answer(client, body), answer(client, body)
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1]
    assert texts[0] != texts[1]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert first["usage"]["prompt_tokens"] < 60


def test_streamed_choices_are_told_apart_by_index(client: httpx.Client) -> None:
    body = chat(messages=STORIES[0], n=2, temperature=1.0, seed=7, max_tokens=16)
    texts = ["", ""]
    for chunk in events(client, body)[:-1]:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    whole = answer(client, body)
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]


def test_max_tokens_ends_an_answer_with_length(client: httpx.Client) -> None:
    made = answer(client, chat(max_tokens=3))
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["usage"]["completion_tokens"] == 3


def test_a_stop_string_is_not_shown_streamed_or_not(client: httpx.Client) -> None:
    body = chat(stop=[" is Paris"])
    made = answer(client, body)["choices"][0]
    assert (made["message"]["content"], made["finish_reason"]) == ("The capital of France", "stop")
    chunks = events(client, body)[:-1]
    shown = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert shown == "The capital of France"


def test_chat_logprobs_report_each_token_and_its_rivals(client: httpx.Client) -> None:
    made = answer(client, chat(logprobs=True, top_logprobs=3, max_tokens=4))
    content = made["choices"][0]["logprobs"]["content"]
    assert "".join(item["token"] for item in content) == made["choices"][0]["message"]["content"]
    for item in content:
        assert item["logprob"] <= 0
        assert item["top_logprobs"][0]["token"] == item["token"]
        assert len(item["top_logprobs"]) == 3
        assert bytes(item["bytes"]).decode() == item["token"]


def test_a_completion_continues_its_prompt_and_is_short_by_default(client: httpx.Client) -> None:
    made = answer(client, complete())
    assert made["choices"][0]["text"].startswith(" Paris")
    assert made["usage"]["completion_tokens"] == 16


def test_echo_with_logprobs_covers_prompt_and_answer(client: httpx.Client) -> None:
    body = complete(echo=True, logprobs=1, max_tokens=3)
    choice = answer(client, body)["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("The capital of France is Paris")
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert logprobs["text_offset"][:3] == [0, 3, 11]
    chunks = events(client, body)[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]


def test_several_prompts_give_several_choices_in_order(client: httpx.Client) -> None:
    prompts = ["The capital of France is", "The capital of Italy is"]
    made = answer(client, complete(prompt=prompts, max_tokens=2))
    texts = [choice["text"] for choice in made["choices"]]
    assert texts[0].startswith(" Paris")
    assert texts[1].startswith(" Rome")
    assert made["usage"]["completion_tokens"] == 4


def test_token_ids_are_a_prompt_and_are_checked(client: httpx.Client) -> None:
    made = answer(client, complete(prompt=[504, 3575, 282, 4649, 314], max_tokens=2))
    assert made["usage"]["prompt_tokens"] == 5
    error = refused(client, "/v1/completions", 400, json=complete(prompt=[49152]))
    assert error["param"] == "prompt"
    assert "49152" in error["message"]


def test_the_tokens_of_a_chat_are_as_many_as_its_usage_says(client: httpx.Client) -> None:
    asked = {"model": "test-model", "messages": FRANCE, "return_token_strs": True}
    made = client.post("/v1/tokenize", json=asked).json()
    usage = answer(client, chat(max_tokens=1))["usage"]
    assert (made["count"], len(made["tokens"])) == (usage["prompt_tokens"], usage["prompt_tokens"])
    assert made["token_strs"][0] == "<|im_start|>"
    ids = {"model": "test-model", "tokens": made["tokens"]}
    text = client.post("/v1/detokenize", json=ids).json()["prompt"]
    assert text.endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_tokens_of_a_prompt_are_those_that_a_completion_reads(client: httpx.Client) -> None:
    asked = {"model": "test-model", "prompt": complete()["prompt"]}
    made = client.post("/v1/tokenize", json=asked).json()
    usage = answer(client, complete(max_tokens=1))["usage"]
    assert (made["count"], made["token_strs"]) == (usage["prompt_tokens"], None)
    error = refused(client, "/v1/tokenize", 404, json={**asked, "model": "another"})
    assert error["code"] == "model_not_found"


def test_logit_bias_forbids_a_token(client: httpx.Client) -> None:
    made = answer(client, chat(logprobs=True, top_logprobs=0, max_tokens=1))
    usual = made["choices"][0]["message"]["content"]
    token = next(str(at) for at in (504,))
    other = answer(client, chat(logit_bias={token: -100}, max_tokens=1))
    assert usual == "The"
    assert other["choices"][0]["message"]["content"] != "The"


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(client: httpx.Client) -> None:
    error = refused(client, "/v1/chat/completions", 400, json=chat(max_tokens=8192))
    assert error["code"] == "context_length_exceeded"
    assert "8192" in error["message"]
    assert "37" in error["message"]
    long = complete(prompt="word " * 9000)
    assert refused(client, "/v1/completions", 400, json=long)["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 400, "json_too_deep"),
        (b"x" * (9 << 20), 413, "body_too_large"),
        (json.dumps(chat(model="other")).encode(), 404, "model_not_found"),
        (json.dumps(chat(functions=[])).encode(), 400, "unsupported_parameter"),
        (json.dumps(chat(temperature=3)).encode(), 400, "invalid_value"),
        (json.dumps(chat(logit_bias={"x": 1})).encode(), 400, "invalid_token_id"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openai_s_envelope(
    client: httpx.Client, body: bytes, status: int, code: str
) -> None:
    assert refused(client, "/v1/chat/completions", status, content=body)["code"] == code


def test_a_generating_model_makes_no_embeddings(client: httpx.Client) -> None:
    body = {"model": "test-model", "input": "x"}
    assert refused(client, "/v1/embeddings", 400, json=body)["code"] == "wrong_task"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/metrics"),
        ("POST", "/drain"),
        ("GET", "/nothing"),
    ],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic a-token-for-tests", "Bearer"])
def test_every_other_route_wants_the_token(
    real: Any, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = httpx.request(method, real.url + path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


def test_health_and_readiness_want_no_token(real: Any) -> None:
    assert httpx.get(real.url + "/healthz").status_code == 200
    ready = httpx.get(real.url + "/readyz")
    assert ready.status_code == 200
    assert ready.json()["context_tokens"] == 8192
    assert ready.json()["kv_cache_tokens"] > 8192
    assert 0.0 <= ready.json()["kv_used"] < 1.0
    assert ready.json()["waiting"] == 0


def test_unknown_paths_and_methods_are_errors_in_the_same_envelope(client: httpx.Client) -> None:
    assert client.get("/nothing").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/v1/chat/completions").status_code == 405


def test_the_openai_client_works_unmodified(real: Any) -> None:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="a-token-for-tests") as api:
        assert [model.id for model in api.models.list()] == ["test-model"]
        stream = api.chat.completions.create(
            model="test-model",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            stream=True,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert "Paris" in text
        with pytest.raises(openai.NotFoundError):
            api.completions.create(model="other", prompt="x")
        with pytest.raises(openai.BadRequestError):
            api.completions.create(model="test-model", prompt="x", max_tokens=100_000)


def generated(real: Any) -> float:
    found: float = real.metric("vllm:generation_tokens_total")
    return found


def wait_until_free(real: Any) -> None:
    deadline = time.monotonic() + 60
    while real.metric("vllm:kv_cache_usage_perc") or real.metric("tidegate_requests_in_flight"):
        assert time.monotonic() < deadline, "blocks are still held"
        time.sleep(0.02)


def test_a_client_that_leaves_a_stream_frees_its_blocks_before_the_end(real: Any) -> None:
    before = generated(real)
    body = chat(stream=True, max_tokens=4000, ignore_eos=True)
    with real.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as lines:
        received = lines.iter_lines()  # kept: a collected iterator would close the stream
        next(received)
        assert real.metric("vllm:kv_cache_usage_perc") > 0
    wait_until_free(real)
    assert 0 < generated(real) - before < 4000


def test_a_client_that_leaves_a_whole_answer_frees_its_blocks_before_the_end(real: Any) -> None:
    before = generated(real)
    body = json.dumps(chat(max_tokens=4000, ignore_eos=True)).encode()
    with socket.create_connection(("127.0.0.1", real.status["port"])) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b"authorization: Bearer a-token-for-tests\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        deadline = time.monotonic() + 60
        while not real.metric("vllm:kv_cache_usage_perc"):
            assert time.monotonic() < deadline
    wait_until_free(real)
    assert generated(real) - before < 4000


def test_an_idle_replica_uses_no_core(real: Any) -> None:
    def used_ticks() -> int:
        with open(f"/proc/{real.process.pid}/stat") as file:  # noqa: PTH123
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    time.sleep(0.2)
    before = used_ticks()
    time.sleep(1.0)
    assert used_ticks() - before <= 10


def test_every_log_line_is_whole(real: Any) -> None:
    lines = [json.loads(line) for line in real.log_path.read_text().splitlines()]
    assert lines
    assert all({"time", "level", "logger", "message"} < line.keys() for line in lines)
    assert {(line["replica"], line["deployment"]) for line in lines} == {("r1", "test-model")}


def answered(replica: Any) -> list[dict[str, Any]]:
    """What the log says so far of requests that were answered."""
    whole = [
        line
        for line in replica.log_path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    return [line for line in map(json.loads, whole) if line["logger"].endswith("access")]


def test_a_replica_alone_takes_the_id_of_whoever_asks_and_needs_none(real: Any) -> None:
    body = chat(max_tokens=1)
    with real.client() as client:
        client.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine-7"})
        client.post("/v1/chat/completions", json=body)
    give_up = time.monotonic() + 60
    said: list[dict[str, Any]] = []
    while len(said) < 2:  # a line is written after its answer
        assert time.monotonic() < give_up
        said = list(dropwhile(lambda line: line.get("request") != "mine-7", answered(real)))
    named, nameless = said
    assert named["status"] == 200
    assert "request" not in nameless


def test_a_long_chat_is_cut_to_what_its_question_is_about(client: httpx.Client) -> None:
    history = [
        {"role": "user", "content": f"{thing} is number {number}. I like it. It is old."}
        for number, thing in enumerate(("A train", "The sea", "Rome", "Bread", "Music", "Rain"))
    ]
    turns = [each for one in history for each in (one, {"role": "assistant", "content": "Good."})]
    asked = [*turns, {"role": "user", "content": "Which number is Rome?"}]
    whole = answer(client, chat(messages=asked, max_tokens=2))["usage"]
    for method in ("relevance", "surprise", "tokens"):
        target = {"target_tokens": 150, "method": method}
        made = answer(client, chat(messages=asked, max_tokens=2, context_compression=target))
        details = made["usage"]["prompt_tokens_details"]
        assert details["compressed_from_tokens"] == whole["prompt_tokens"]
        left = made["usage"]["prompt_tokens"] - details["scoring_tokens"]
        assert 130 < left <= 150 < whole["prompt_tokens"]
        assert (details["scoring_tokens"] > 0) == (method != "relevance")
    error = refused(
        client,
        "/v1/chat/completions",
        400,
        json=chat(messages=asked, context_compression={"target_tokens": 20}),
    )
    assert error["code"] == "context_compression_impossible"
