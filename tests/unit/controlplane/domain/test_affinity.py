"""Requests that begin alike stand next to each other when they are sorted."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tidegate_controlplane.domain.affinity import affinity


def chat(*turns, model="m"):
    return {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in turns],
    }


def of(body, project="prj_1"):
    return affinity(project, body)


def test_requests_with_the_same_instructions_are_neighbours_whatever_follows():
    bodies = [
        (who, chat(("system", f"You are {who}."), ("user", f"{number} {'x' * number}")))
        for who in ("a poet", "a judge", "a clerk")
        for number in range(50)
    ]
    random.Random(1).shuffle(bodies)
    order = [who for who, body in sorted(bodies, key=lambda each: of(each[1]))]
    changes = sum(left != right for left, right in pairwise(order))
    assert changes == 2


def test_among_the_same_instructions_a_longer_common_beginning_stands_closer():
    book, other = "b" * 1024, "o" * 1024
    bodies = [
        (which, chat(("system", "s"), ("user", text + question)))
        for question in ("one?", "two?", "three?")
        for which, text in (("book", book), ("other", other))
    ]
    order = [which for which, body in sorted(bodies, key=lambda each: of(each[1]))]
    assert order in (["book"] * 3 + ["other"] * 3, ["other"] * 3 + ["book"] * 3)


def test_a_prompt_without_instructions_is_grouped_by_its_own_beginning():
    start = "Translate this into French, and keep every name just as it is in English: "
    one, two = (of({"model": "m", "prompt": start + text}) for text in ("cat", "dog"))
    assert len(start) >= 64 and one == two
    assert of({"model": "m", "prompt": "Sum this up, " + start}) != one


@pytest.mark.parametrize(
    "other",
    [
        chat(("system", "other"), ("user", "u")),
        chat(("developer", "s"), ("user", "u")),
        chat(("user", "s"), ("user", "u")),
        chat(("system", "s"), ("user", "u"), model="n"),
    ],
    ids=["text", "role", "not instructions", "model"],
)
def test_what_begins_otherwise_is_no_neighbour(other):
    assert of(other)[:10] != of(chat(("system", "s"), ("user", "u")))[:10]


def test_text_in_parts_is_the_same_as_text():
    parts = {"role": "system", "content": [{"type": "text", "text": "s"}]}
    whole = {"role": "system", "content": "s"}
    assert of({"messages": [parts]}) == of({"messages": [whole]})


def test_projects_share_no_affinity_and_it_is_the_same_in_every_process():
    body = chat(("system", "s"), ("user", "u"))
    assert of(body) != of(body, "prj_2")
    assert of(body) == "5ca83ffb51"


def test_embeddings_and_token_prompts_have_none():
    assert of({"model": "m", "input": "text"}) == ""
    assert of({"model": "m", "prompt": [1, 2, 3]}) == ""


def test_it_is_bounded_however_long_the_prompt():
    assert len(of(chat(("system", "s" * 10**6), ("user", "u" * 10**6)))) == 50
