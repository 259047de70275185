"""Lines of a batch, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate_runtime.batch.lines import Line, failed, read_request, split
from tidegate_runtime.errors import InputRefused, RequestRefused

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def line(**changes: Any) -> bytes:
    whole = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    return json.dumps(whole | changes).encode()


def test_lines_are_the_same_however_the_bytes_come() -> None:
    text = b'{"a": 1}\n\n  \n{"b": 2}\r\n{"c": 3}'
    whole = list(split([text], "input"))
    assert [found.number for found in whole] == [1, 4, 5]
    assert [text[found.start : found.end] for found in whole] == [found.text for found in whole]
    for size in range(1, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert list(split(pieces, "input")) == whole


def test_a_line_without_an_end_is_refused_by_its_number() -> None:
    endless = [b"{}\n", *[b"x" * (1 << 20)] * 9]
    with pytest.raises(InputRefused, match=r"in.jsonl line 2: \d+ bytes and no end"):
        list(split(endless, "in.jsonl"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"{", "not JSON"),
        (line(url="/metrics"), r"url: '/metrics' is no route; use /v1/chat/completions"),
        (line(method="GET"), "method"),
        (line(custom_id=""), "custom_id"),
        (line(body=CHAT | {"stream": True}), "stream: True"),
        (line(body=CHAT | {"temperature": 9}), "temperature"),
    ],
)
def test_a_bad_line_is_refused_by_what_is_wrong_with_it(text: bytes, named: str) -> None:
    with pytest.raises(RequestRefused, match=named):
        read_request(text)


def test_a_refused_line_has_the_shape_of_a_failed_request() -> None:
    text = line(custom_id="q-7", url="/x")
    outcome = failed("in.jsonl:7", Line(7, 0, len(text), text), RequestRefused("no", code="c"))
    said = json.loads(outcome.text)
    assert not outcome.is_answer
    assert said["custom_id"] == "q-7"
    assert said["response"]["status_code"] == 400
    assert said["response"]["body"]["error"]["code"] == "c"
    assert said["error"] is None
