"""A large array asked in pieces: the groups of its items, and one answer out of many."""

from __future__ import annotations

import json

import pytest

from tidegate_controlplane.work.items import PIECE_BYTES, PIECE_ITEMS, groups
from tidegate_controlplane.work.joined_answer import JoinedAnswer, UnfitAnswer

EMBEDDINGS, COMPLETIONS = "/v1/embeddings", "/v1/completions"


async def grouped(document, array="input", cut=50):
    async def pieces():
        data = json.dumps(document).encode()
        for start in range(0, len(data), cut):
            yield data[start : start + cut]

    return [group async for group in groups(pieces(), array)]


async def test_items_come_in_their_order_in_groups_of_a_bounded_number():
    items = [f"é{number}" for number in range(PIECE_ITEMS * 2 + 1)]
    found = await grouped({"stop": ["no", "item"], "input": items, "model": "m"})
    assert [len(group) for group in found] == [PIECE_ITEMS, PIECE_ITEMS, 1]
    assert [item for group in found for item in group] == items


async def test_lists_of_tokens_are_items():
    items = [[1, 2], [3], [4, 5, 6]]
    assert await grouped({"model": "m", "prompt": items}, "prompt", cut=3) == [items]


async def test_a_group_is_bounded_in_bytes_and_a_large_item_goes_alone():
    items = ["a" * (PIECE_BYTES // 2), "b" * (PIECE_BYTES // 3), "c" * PIECE_BYTES * 2, "d"]
    found = await grouped({"model": "m", "input": items}, cut=1 << 20)
    assert [len(group) for group in found] == [2, 1, 1]


def vectors(numbers, tokens):
    return json.dumps(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": [number, 0.1]}
                for index, number in enumerate(numbers)
            ],
            "model": "m",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    ).encode()


def test_vectors_are_numbered_on_and_usage_is_summed():
    answer = JoinedAnswer(EMBEDDINGS, 1)
    body = answer.add(vectors([1.0, 2.0], 5), 2) + answer.add(vectors([3.0], 7), 1)
    document = json.loads(body + answer.finish())
    assert document == {
        "object": "list",
        "model": "m",
        "data": [
            {"object": "embedding", "index": index, "embedding": [index + 1.0, 0.1]}
            for index in range(3)
        ],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
    }


def test_choices_are_numbered_on_by_as_many_as_each_prompt_has():
    def piece(id_, texts):
        choices = [{"index": index, "text": text} for index, text in enumerate(texts)]
        usage = {"prompt_tokens": 1, "completion_tokens": len(texts)}
        head = {"id": id_, "object": "text_completion", "created": 1, "model": "m"}
        return json.dumps({**head, "choices": choices, "usage": usage}).encode()

    answer = JoinedAnswer(COMPLETIONS, 2)
    body = answer.add(piece("first", "abcd"), 2) + answer.add(piece("second", "ef"), 1)
    document = json.loads(body + answer.finish())
    assert document["id"] == "first"
    assert [(choice["index"], choice["text"]) for choice in document["choices"]] == list(
        enumerate("abcdef")
    )
    assert document["usage"] == {"prompt_tokens": 2, "completion_tokens": 6}
    assert answer.items == 3


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", vectors([1.0], 1), b'{"data": [{}, {}]}', b'{"data": [1, 2]}']
)
def test_an_answer_without_an_entry_for_each_item_is_unfit(body):
    with pytest.raises(UnfitAnswer):
        JoinedAnswer(EMBEDDINGS, 1).add(body, 2)
