"""A row as a request."""

from __future__ import annotations

from datetime import date

import pytest

from tidegate.errors import TableError
from tidegate.protocol.batch import TableInput
from tidegate.tables.base import Answered
from tidegate.tables.request import RowError, answered, row_request

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def table(**terms):
    return TableInput(uri="s3://b/in/", format="csv", **terms)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}),
        (COMPLETIONS, {"prompt": "hi"}),
        (EMBEDDINGS, {"input": "hi"}),
    ],
)
def test_a_column_is_the_prompt_of_its_endpoint(endpoint, body):
    wanted = row_request(table(column="q", model="m"), endpoint)
    assert wanted.body({"q": "hi", "other": 1}) == {"model": "m", **body}
    assert wanted.columns == ("q",)


def test_a_template_takes_several_columns_and_keeps_what_is_not_text():
    template = {
        "model": "m",
        "max_tokens": 5,
        "messages": [
            {"role": "system", "content": "Answer in {{ language }}."},
            {"role": "user", "content": "{{q}} ({{q}})"},
        ],
    }
    wanted = row_request(table(template=template, id_column="id"), CHAT)
    filled = wanted.body({"q": "{{language}}", "language": "French", "id": 7})
    assert filled["max_tokens"] == 5
    assert filled["messages"][0]["content"] == "Answer in French."
    assert filled["messages"][1]["content"] == "{{language}} ({{language}})", (
        "values are not filled"
    )
    assert wanted.columns == ("language", "q", "id")
    assert wanted.custom_id({"id": 7}, 3) == "7"
    assert row_request(table(column="q", model="m"), CHAT).custom_id({"id": 7}, 3) == "row-3"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (0.5, "0.5"), (True, "true"), (["a"], '["a"]'), (date(2026, 1, 2), "2026-01-02")],
)
def test_a_value_that_is_no_text_is_written_as_its_json_or_its_name(value, text):
    wanted = row_request(table(column="q", model="m"), COMPLETIONS)
    assert wanted.body({"q": value})["prompt"] == text


@pytest.mark.parametrize("row", [{"q": None}, {}, None])
def test_a_row_without_a_value_is_at_fault_alone(row):
    with pytest.raises(RowError):
        row_request(table(column="q", model="m"), COMPLETIONS).body(row)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"model": "m"}, "exactly one of 'column' and 'template'"),
        ({"model": "m", "column": "q", "template": {}}, "exactly one"),
        ({"column": "q"}, "model: give the name"),
        ({"template": {"prompt": "{{q}}"}}, "model: give the name"),
        ({"model": "m", "template": {"model": "n", "prompt": "{{q}}"}}, "names one already"),
        ({"model": "m", "template": {"prompt": "hello"}}, "all rows would be alike"),
    ],
)
def test_terms_that_leave_something_open_are_refused(terms, said):
    with pytest.raises(TableError, match=said):
        row_request(table(**terms), COMPLETIONS)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"choices": [{"message": {"content": "a"}}]}, "a"),
        ({"choices": [{"text": "b"}]}, "b"),
        ({"choices": [{"message": {"content": None}}]}, None),
        ({"data": [{"embedding": [0.5]}]}, [0.5]),
    ],
)
def test_the_answer_is_what_the_model_said_first(body, answer):
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert answered(body | {"usage": usage}) == Answered(answer, None, 3, 4)
