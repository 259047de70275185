from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.errors import UpstreamFailed
from tidegate_controlplane.gateway import sse
from tidegate_controlplane.gateway.sse import EventSplitter, UsageFilter, usage_of


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def chat(text: str | None, **fields: Any) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **fields})


USAGE = event({"id": "c", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
DONE = b"data: [DONE]\n\n"
STREAM = [chat(""), chat("Pa"), b": comment\n\n", chat("ris"), USAGE, DONE]


def filtered(pieces: list[bytes], *, keep_usage: bool) -> tuple[list[bytes], UsageFilter]:
    events = UsageFilter(keep_usage=keep_usage)
    return [kept for piece in pieces for kept in events.feed(piece)], events


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_events_come_out_the_same_however_the_bytes_were_cut(cuts: list[int]) -> None:
    whole = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    kept, events = filtered(pieces, keep_usage=True)
    assert kept == STREAM
    assert events.is_finished
    assert events.tokens(99) == (7, 2)


def test_an_event_comes_out_with_its_last_byte() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: 1\n")) == []
    assert list(splitter.feed(b"\nda")) == [b"data: 1\n\n"]
    assert list(splitter.feed(b"ta: 2\r\n\r")) == []
    assert list(splitter.feed(b"\ndata: 3\n\n")) == [b"data: 2\r\n\r\n", b"data: 3\n\n"]


def test_a_client_that_did_not_ask_sees_no_usage_at_all() -> None:
    nulls = [chat("Pa", usage=None), chat("ris", usage=None)]
    kept, events = filtered([*nulls, USAGE, DONE], keep_usage=False)
    assert b"usage" not in b"".join(kept)
    assert [json.loads(e[6:])["choices"][0]["delta"]["content"] for e in kept[:2]] == ["Pa", "ris"]
    assert kept[2:] == [DONE]
    assert events.tokens(99) == (7, 2)


def test_usage_on_an_event_with_choices_loses_only_the_usage() -> None:
    last = chat("Paris", usage={"prompt_tokens": 7, "completion_tokens": 2})
    kept, events = filtered([last], keep_usage=False)
    assert "usage" not in json.loads(kept[0][6:])
    assert json.loads(kept[0][6:])["choices"]
    assert events.tokens(0) == (7, 2)


def test_events_without_usage_pass_byte_for_byte() -> None:
    odd = b'data:  {"choices":[{"delta":{"content":"\\u00e9"}}],   "x":1.0}\n\n'
    assert filtered([odd, b"data: not json\n\n"], keep_usage=False)[0] == [
        odd,
        b"data: not json\n\n",
    ]


def test_text_that_looks_like_usage_is_left_alone() -> None:
    spoof = chat('"usage": null')
    assert filtered([spoof], keep_usage=False)[0] == [spoof]


def test_a_cut_stream_is_counted_by_what_was_seen() -> None:
    completion = event({"choices": [{"index": 0, "text": "x"}]})
    _, events = filtered([chat(""), chat("Pa"), chat(None), completion], keep_usage=False)
    assert not events.is_finished
    assert events.tokens(11) == (11, 2)


def test_an_error_event_is_a_last_word() -> None:
    _, events = filtered([event({"error": {"message": "no"}})], keep_usage=False)
    assert events.is_finished


def test_an_event_without_an_end_is_not_collected_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    splitter = EventSplitter()
    with pytest.raises(UpstreamFailed):
        for _ in range(100):
            list(splitter.feed(b"x" * 50))


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "id": 1}', (3, 4)),
        (b'{"id": 1,"usage" : {"prompt_tokens":3,"total_tokens":3}}', (3, 0)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"details":{"a":{}}}}', (3, 4)),
        (b'{"usage": null}', (0, 0)),
        (b'{"id": 1}', (0, 0)),
        (b'{"usage": {"prompt', (0, 0)),
        (b"", (0, 0)),
    ],
)
def test_the_usage_of_a_whole_answer_is_read_from_its_end(
    body: bytes, tokens: tuple[int, int]
) -> None:
    assert usage_of(body) == tokens


@given(st.text())
def test_text_in_an_answer_never_passes_for_its_usage(text: str) -> None:
    answer = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "text": text + '"usage":{}'}
    assert usage_of(json.dumps(answer).encode()) == (3, 4)
    assert usage_of(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")) == (3, 4)


PIECES = st.sampled_from(
    [
        chat("Pa", usage=None),
        chat('a "usage":null} word'),
        chat(None),
        chat('"error"', usage=None),
        chat("x", usage={"prompt_tokens": 3, "completion_tokens": 1}),
        event({"error": {"message": "no"}}),
        event({"choices": [{"text": '"quoted"'}], "usage": None}),
        event({"usage": None}),
        event({"nested": {"usage": None}, "choices": []}),
        USAGE,
        DONE,
        b": comment\n\n",
        b"data: {\ndata: }\n\n",
    ]
)


@given(st.lists(PIECES, max_size=8), st.booleans(), st.booleans())
def test_an_event_told_by_its_bytes_passes_as_one_that_is_parsed(
    pieces: list[bytes], compact: bool, keep_usage: bool
) -> None:
    if compact:
        pieces = [piece.replace(b'": ', b'":').replace(b', "', b',"') for piece in pieces]
    quick, quick_filter = filtered(pieces, keep_usage=keep_usage)
    parsing = UsageFilter(keep_usage=keep_usage)
    parsed = [kept for piece in pieces if (kept := parsing._pass_parsed(piece))]
    assert [_meaning(each) for each in quick] == [_meaning(each) for each in parsed]
    assert quick_filter.tokens(9) == parsing.tokens(9)
    assert quick_filter.is_finished == parsing.is_finished


def _meaning(event: bytes) -> Any:
    try:
        return json.loads(event.removeprefix(b"data: "))
    except ValueError:
        return event


@pytest.mark.parametrize("head", [{"id": "c"}, {"usage": None, "id": "c"}])
def test_a_piece_of_a_call_counts_as_a_token_of_a_cut_stream(head: dict[str, Any]) -> None:
    def call(**function: str) -> bytes:
        delta = {"tool_calls": [{"index": 0, "function": function}]}
        return event({**head, "choices": [{"index": 0, "delta": delta}]})

    pieces = [chat(""), call(name="f", arguments=""), call(arguments="{"), call(arguments='"')]
    _, events = filtered(pieces, keep_usage=True)
    assert events.token_events == 2
