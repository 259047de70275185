"""Bytes into lines, lines into events, events into chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import ChatChunk, errors
from tidegate.flow.lines import LineSplitter
from tidegate.flow.sse import EventDecoder, events
from tidegate.flow.steps import Emit, ReadChunk, Reply, Request


def _split(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return found + splitter.finish()


def test_lines_end_with_cr_lf_or_both_even_across_pieces() -> None:
    assert _split(b"a\nb\r", b"\nc\rd", b"\n\ne") == ["a", "b", "c", "d", "", "e"]


def test_other_unicode_separators_do_not_end_a_line() -> None:
    text = "a\u2028b\x0bc\x85d"
    assert _split(text.encode() + b"\n") == [text]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), min_size=1), st.data())
def test_lines_do_not_depend_on_how_the_bytes_were_cut(lines: list[str], data: Any) -> None:
    whole = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    cut = data.draw(st.integers(0, len(whole)))
    assert _split(whole[:cut], whole[cut:]) == _split(whole)


def _decode(text: str) -> list[tuple[str | None, str]]:
    decoder = EventDecoder()
    found = [decoder.feed(line) for line in text.split("\n")]
    return [(event.event, event.data) for event in found if event]


def test_heartbeats_and_blank_lines_make_no_events() -> None:
    assert _decode(": beat\n\n\n: beat\n\n") == []


def test_data_of_several_lines_is_joined_and_one_leading_space_is_dropped() -> None:
    assert _decode("event: x\ndata: a\ndata:b\ndata:  c\nid: 1\n\n") == [("x", "a\nb\n c")]


def _chunk(text: str) -> str:
    body = {
        "id": "c",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }
    return f"data: {json.dumps(body)}\n\n"


def _read(*pieces: str) -> list[str]:
    """The chunks' texts of a stream in these pieces."""
    left: list[bytes] = [piece.encode() for piece in pieces]
    flow, answer, texts = events(Request("POST", "/x", stream=True), ChatChunk), None, []
    try:
        while True:
            step = flow.send(answer)
            if isinstance(step, Request):
                answer: Any = Reply(200, {"x-request-id": "req_9"}, body="handle")
            elif isinstance(step, ReadChunk):
                assert step.body == "handle"
                answer = left.pop(0) if left else None
            else:
                assert isinstance(step, Emit)
                texts.append(step.item.text)
                answer = None
    except StopIteration:
        return texts


def test_a_stream_gives_its_chunks_until_done() -> None:
    assert _read(": b\n\n" + _chunk("Pa"), _chunk("ris"), "data: [DONE]\n\n") == ["Pa", "ris"]


def test_done_counts_without_a_last_blank_line() -> None:
    assert _read(_chunk("x"), "data: [DONE]") == ["x"]


def test_a_stream_that_is_cut_raises_instead_of_passing_for_finished() -> None:
    with pytest.raises(errors.ConnectionFailed, match="before it was done"):
        _read(_chunk("Pa"))


def test_an_error_event_raises_the_typed_error_with_the_request_id() -> None:
    event = {"error": {"message": "replica died", "type": "server_error", "code": "replica_lost"}}
    with pytest.raises(errors.ServerError, match="replica died") as caught:
        _read(_chunk("Pa"), f"data: {json.dumps(event)}\n\n")
    assert (caught.value.code, caught.value.request_id) == ("replica_lost", "req_9")


def test_an_event_that_is_no_chunk_is_named() -> None:
    with pytest.raises(errors.UnexpectedAnswer, match="not a ChatChunk"):
        _read("data: nonsense\n\n")
