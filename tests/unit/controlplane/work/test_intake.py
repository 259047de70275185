"""A body of any size, checked as it passes."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from tidegate.protocol.replica import MAX_BODY_BYTES
from tidegate.protocol.work import MAX_INVOCATION_ITEMS
from tidegate_controlplane.errors import BadRequest, TooLarge
from tidegate_controlplane.work.intake import MAX_FIELD_BYTES, MAX_ITEM_BYTES, Intake
from tidegate_controlplane.work.request import Wanted, check, infer_endpoint, parse

CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}]}
DEPTH = 8


def taken(body, cut=None):
    """The outline of a body that comes in pieces of `cut` bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    intake = Intake(DEPTH)
    for start in range(0, len(data), cut or len(data) or 1):
        intake.feed(data[start : start + (cut or len(data))])
    return intake.finish()


@pytest.mark.parametrize("cut", [1, 7, None])
def test_the_outline_is_the_same_however_the_body_is_cut(cut):
    body = {"dimensions": 3, "input": ["a", 'b"\\', "é" * 5], "model": "m", "encoding_format": None}
    found = taken(body, cut)
    assert found.wanted == Wanted("/v1/embeddings", "m", 0)
    assert (found.array, found.items) == ("input", 3)
    assert found.fields == {"dimensions": 3, "model": "m", "encoding_format": None}


@pytest.mark.parametrize(
    "body",
    [
        CHAT,
        {**CHAT, "temperature": 0.5, "stop": ["a", "b"], "logit_bias": {"5": 1.5}, "seed": 2**62},
        {**CHAT, "temperature": "hot"},
        {**CHAT, "temperature": 1},
        {**CHAT, "stream": True},
        {**CHAT, "stream": False},
        {**CHAT, "user": "me"},
        {**CHAT, "model": ""},
        {**CHAT, "prompt": "x"},
        {**CHAT, "messages": []},
        {**CHAT, "messages": [{"role": "robot", "content": "x"}]},
        {"model": "m"},
        {"messages": CHAT["messages"]},
        {"model": "m", "prompt": "text", "max_tokens": 0},
        {"model": "m", "prompt": "text", "max_tokens": 0, "echo": True},
        {"model": "m", "prompt": ["a", "b"], "n": 8},
        {"model": "m", "prompt": [1, 2, 3]},
        {"model": "m", "prompt": [[1], [2, 3]]},
        {"model": "m", "prompt": []},
        {"model": "m", "prompt": ["a", ""]},
        {"model": "m", "prompt": ["a", 1]},
        {"model": "m", "prompt": [1, "a"]},
        {"model": "m", "prompt": [[1], []]},
        {"model": "m", "prompt": [[1], 2]},
        {"model": "m", "prompt": [[1], ["a"]]},
        {"model": "m", "prompt": [[1.5]]},
        {"model": "m", "prompt": [True]},
        {"model": "m", "prompt": [None]},
        {"model": "m", "prompt": [{"a": 1}]},
        {"model": "m", "prompt": [[[1]]]},
        {"model": "m", "prompt": {"a": 1}},
        {"model": "m", "input": ["a"], "dimensions": 0},
        {"model": "m", "input": ["a"], "n": 2},
        {"model": "m", "input": ["a"], "prompt": ["b"]},
        {"model": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}}, "prompt": "x"},
        [],
        "text",
        b"",
        b"{",
        b'{"model": "m", "prompt": "x"} x',
        b'{"model": "m", "prompt": NaN}',
        b'{"model": "m", "prompt": "\xff"}',
    ],
)
def test_it_refuses_exactly_what_a_small_request_is_refused_for(body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        document = parse(data, DEPTH)
        expected = check(document, infer_endpoint(document))
    except BadRequest as refused:
        with pytest.raises(BadRequest) as found:
            taken(data)
        assert found.value.code == refused.code
    else:
        assert taken(data).wanted == expected


def test_more_items_are_taken_than_a_request_that_is_answered_at_once_may_have():
    found = taken({"model": "m", "input": ["x"] * 5000})
    assert (found.items, found.fields) == (5000, {"model": "m"})


def test_the_number_of_items_is_bounded():
    intake = Intake(DEPTH)
    intake.feed(b'{"model": "m", "input": ["a"')
    intake._array.items = MAX_INVOCATION_ITEMS - 1
    intake.feed(b', "a"')
    with pytest.raises(BadRequest, match=f"at most {MAX_INVOCATION_ITEMS} items"):
        intake.feed(b', "a"')


def test_a_field_given_twice_is_refused():
    for twice in (b'"model": "a", "model": "b", "input": ["x"]', b'"input": ["x"], "input": ["y"]'):
        with pytest.raises(BadRequest, match="more than once"):
            taken(b"{" + twice + b"}")


def test_the_item_that_is_wrong_is_named():
    with pytest.raises(BadRequest, match="item 2 is empty"):
        taken({"model": "m", "input": ["a", "b", ""]})
    with pytest.raises(BadRequest, match="item 1 is another"):
        taken({"model": "m", "input": ["a", 5]})


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]},
        {"model": "m", "prompt": "x" * MAX_BODY_BYTES},
        {"model": "m", "prompt": [10**17] * (MAX_BODY_BYTES // 18)},
    ],
    ids=["chat", "prompt", "tokens"],
)
def test_what_only_a_whole_request_can_ask_is_no_larger_than_a_replica_takes(body):
    with pytest.raises(TooLarge, match=f"{MAX_BODY_BYTES} bytes"):
        taken(body)


def test_an_item_is_no_larger_than_a_replica_takes():
    assert taken({"model": "m", "input": ["a", "x" * (MAX_ITEM_BYTES - 100)]}).items == 2
    with pytest.raises(TooLarge, match="item 1 is larger"):
        taken({"model": "m", "input": ["a", "x" * (MAX_ITEM_BYTES + 200_000)]})


def test_the_fields_beside_an_array_are_small_because_each_piece_repeats_them():
    bias = {str(number): 1.0 for number in range(40_000)}
    assert len(json.dumps(bias)) > MAX_FIELD_BYTES + 200_000
    with pytest.raises(TooLarge, match="the fields beside 'prompt'"):
        taken({"model": "m", "prompt": ["a"], "logit_bias": bias})


def test_an_array_is_not_held():
    piece = json.dumps("word " * 200).encode() + b","
    intake = Intake(DEPTH)
    intake.feed(b'{"model": "m", "input": [')
    tracemalloc.start()
    try:
        for _ in range(20_000):
            intake.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    intake.feed(b'"end"]}')
    assert intake.finish().items == 20_001
    assert peak < 1_000_000
