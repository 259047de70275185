"""What one line of a batch asks for, and what a whole file may not have."""

from __future__ import annotations

import json

import pytest

from tidegate_controlplane.work.batch_line import (
    MAX_ERRORS,
    Faulty,
    Rules,
    Survey,
    Valid,
    claimed_ids,
    read_line,
)
from tidegate_controlplane.work.lines import Line

BODY = {"model": "live", "messages": [{"role": "user", "content": "hi"}]}
GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


@pytest.fixture
def rules(catalog):
    return Rules(catalog, "prj_1", "/v1/chat/completions", depth=64, max_line_bytes=1000)


def line(document, number=7):
    return Line(number, json.dumps(document).encode())


def test_a_good_line_is_a_request_for_its_deployment(rules):
    found = read_line(line(GOOD), rules)
    assert isinstance(found, Valid)
    assert (found.line_no, found.custom_id, found.served.name) == (7, "a", "live")
    assert json.loads(found.body) == BODY


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"method": "GET"}, "method"),
        ({"url": "/v1/embeddings"}, "url"),
        ({"custom_id": 5}, "custom_id"),
        ({"custom_id": ""}, "custom_id"),
        ({"custom_id": "x" * 513}, "custom_id"),
        ({"body": []}, "body"),
        ({"priority": 1}, "priority"),
        ({"body": {"model": "live"}}, "messages"),
        ({"body": BODY | {"stream": True}}, "stream"),
        ({"body": BODY | {"functions": []}}, "functions"),
        ({"body": BODY | {"model": "absent"}}, "model"),
        ({"body": BODY | {"model": "vectors"}}, "model"),
    ],
)
def test_a_line_that_is_wrong_fails_and_names_the_field_and_the_line(rules, change, param):
    found = read_line(line(GOOD | change), rules)
    assert isinstance(found, Faulty)
    assert found.failure.param == param
    assert found.failure.message.startswith("line 7: ")


@pytest.mark.parametrize("text", [b"not json", b"[]", b'{"custom_id": "a"', None])
def test_a_line_that_is_no_object_has_no_custom_id(rules, text):
    found = read_line(Line(3, text), rules)
    assert isinstance(found, Faulty)
    assert found.custom_id is None


def test_a_wrong_line_keeps_the_custom_id_and_model_that_it_does_say(rules):
    found = read_line(line(GOOD | {"url": "/nowhere"}), rules)
    assert isinstance(found, Faulty)
    assert (found.custom_id, found.model) == ("a", "live")


def test_a_null_character_is_refused_and_kept_nowhere(rules):
    """PostgreSQL could not store it."""
    found = read_line(line(GOOD | {"custom_id": "a\0"}), rules)
    assert isinstance(found, Faulty)
    assert (found.custom_id, found.failure.param) == (None, "custom_id")
    body = {**GOOD["body"], "model": "li\0ve"}
    found = read_line(line(GOOD | {"body": body}), rules)
    assert isinstance(found, Faulty)
    assert found.model == "live"


def test_only_lines_that_give_themselves_an_id_claim_one(rules):
    lines = [line(GOOD, 1), Line(2, b"junk"), line({"custom_id": 5}, 3), Line(4, None)]
    assert claimed_ids(lines, rules) == [(1, "a")]


def test_a_file_without_lines_is_empty():
    assert [error.code for error in Survey(10).finish()] == ["empty_file"]


def test_a_duplicate_custom_id_names_both_lines():
    survey = Survey(10)
    survey.add(2, [(1, "a"), (2, "b")])
    survey.add(1, [(9, "a")])
    [error] = survey.finish()
    assert (error.code, error.line) == ("duplicate_custom_id", 9)
    assert "lines 1 and 9" in error.message


def test_as_many_lines_as_allowed_are_fine_and_one_more_is_not():
    survey = Survey(3)
    survey.add(3, [])
    assert survey.finish() == [] and not survey.is_over
    survey.add(1, [])
    assert [error.code for error in survey.finish()] == ["too_many_tasks"] and survey.is_over


def test_not_every_duplicate_is_told_of():
    survey = Survey(1000)
    survey.add(500, [(number, "same") for number in range(1, 501)])
    assert survey.is_over and len(survey.finish()) == MAX_ERRORS
