"""A streamed answer that is put together says what the replica says unstreamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate_controlplane.gateway.assembly import Assembly, asking_stream
from tidegate_controlplane.gateway.sse import ChunkReader

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SAID = {"messages": [{"role": "user", "content": "Say something about the sea, in French."}]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {**SAID, "n": 3, "seed": 7, "temperature": 1.0, "max_tokens": 10}),
        (CHAT, {**SAID, "logprobs": True, "top_logprobs": 2, "max_tokens": 6}),
        (CHAT, {**SAID, "stop": ["mer", " "], "max_tokens": 12}),
        (TEXT, {"prompt": ["The sea", "A ship"], "n": 2, "seed": 1, "max_tokens": 6}),
        (TEXT, {"prompt": "The sea", "echo": True, "logprobs": 2, "max_tokens": 5}),
        (TEXT, {"prompt": "The sea", "echo": True, "logprobs": 0, "max_tokens": 0}),
    ],
)
def test_every_field_is_as_in_the_unstreamed_answer(
    real: Any, path: str, fields: dict[str, Any]
) -> None:
    body = json.dumps({"model": "test-model", "temperature": 0, **fields}).encode()
    assembly, reader = Assembly(path), ChunkReader()
    with real.client() as client:
        whole = client.post(path, content=body)
        streamed = client.post(path, content=asking_stream(body))
    assert (whole.status_code, streamed.status_code) == (200, 200), streamed.text
    for chunk in reader.feed(streamed.content):
        assembly.take(chunk)
    assert reader.is_done
    assert unnamed(assembly.answer()) == unnamed(whole.content)


def unnamed(answer: bytes) -> bytes:
    """The bytes without what is another in each answer, or depends on the answers before it."""
    document = json.loads(answer)
    id_, created = document["id"], document["created"]
    cached = document["usage"]["prompt_tokens_details"]["cached_tokens"]
    for found in (id_, f'"created":{created}', f'"cached_tokens":{cached}'):
        answer = answer.replace(found.encode(), b"")
    return answer
