"""What is wrong with a request, by the field at fault, its value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tidegate.protocol.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    ErrorDetail,
    RerankRequest,
    ScoreRequest,
    WireModel,
    error_from_validation,
)

HELLO = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "function", "function": {"name": "weather"}}


def refused(shape: type[WireModel], body: dict[str, Any]) -> ErrorDetail:
    with pytest.raises(ValidationError) as caught:
        shape.model_validate({"model": "smol", **body})
    return error_from_validation(caught.value.errors(include_url=False))


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            {"tool_choice": "auto"},
            "tool_choice",
            "Invalid value for 'tool_choice': only allowed when tools are given (got 'auto').",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "Invalid value for 'response_format.json_schema': needed with type 'json_schema', and "
            "only there.",
        ),
        (
            {"messages": [{"role": "user", "content": "hi", "tool_call_id": "call_1"}]},
            "messages.0.tool_call_id",
            "Invalid value for 'messages.0.tool_call_id': a message of role 'tool' says which call "
            "it answers, and no other (got 'call_1').",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_told_by_one_of_them_and_not_by_the_whole_body(
    body: dict[str, Any], param: str, message: str
) -> None:
    error = refused(ChatCompletionRequest, {"messages": HELLO, **body})
    assert (error.param, error.message) == (param, message)


@pytest.mark.parametrize(
    ("tool_choice", "param", "message"),
    [
        (
            "any",
            "tool_choice",
            "Invalid value for 'tool_choice': Input should be 'none', 'auto' or 'required' "
            "(got 'any').",
        ),
        (
            {"type": "function"},
            "tool_choice.function",
            "Missing required parameter: 'tool_choice.function'.",
        ),
        (
            {**WEATHER, "strict": True},
            "tool_choice.strict",
            "Unsupported parameter: 'tool_choice.strict'. This server does not honour it; remove "
            "it.",
        ),
    ],
)
def test_of_a_union_the_branch_speaks_that_got_furthest(
    tool_choice: Any, param: str, message: str
) -> None:
    body = {"messages": HELLO, "tools": [WEATHER], "tool_choice": tool_choice}
    error = refused(ChatCompletionRequest, body)
    assert (error.param, error.message) == (param, message)


def test_a_part_of_a_message_that_is_no_text_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    error = refused(ChatCompletionRequest, {"messages": [{"role": "user", "content": [image]}]})
    assert error.param == "messages.0.content.0.type"
    assert "'text' (got 'image_url')" in error.message


@pytest.mark.parametrize(
    ("shape", "body", "param", "message"),
    [
        (
            ChatCompletionRequest,
            {"messages": [{"role": "user", "content": 3}]},
            "messages.0.content",
            "Input should be a string or an array (got 3)",
        ),
        (
            ChatCompletionRequest,
            {"messages": HELLO, "response_format": "json_object"},
            "response_format",
            "Input should be an object (got 'json_object')",
        ),
        (
            ChatCompletionRequest,
            {"messages": "hi"},
            "messages",
            "Input should be an array (got 'hi')",
        ),
        (CompletionRequest, {"prompt": {}}, "prompt", "Input should be a string or an array"),
        (RerankRequest, {"query": "q", "documents": [1]}, "documents.0", "a string or an object"),
        (
            RerankRequest,
            {"query": "q", "documents": [{"body": "b"}]},
            "documents.0.text",
            "Missing",
        ),
        (ScoreRequest, {"text_1": "a", "text_2": []}, "text_2", "at least 1 item"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_the_words_of_json(
    shape: type[WireModel], body: dict[str, Any], param: str, message: str
) -> None:
    error = refused(shape, body)
    assert error.param == param
    assert message in error.message


def test_a_field_is_named_as_it_was_sent_also_when_it_is_called_like_a_type() -> None:
    assert refused(ChatCompletionRequest, {"messages": HELLO, "str": 1}).param == "str"
    assert refused(ChatCompletionRequest, {"messages": HELLO, "User": 1}).param == "User"


def test_the_first_fault_is_told_before_one_that_lies_deeper() -> None:
    body = {"messages": [{"role": "user", "content": 3}, {"role": "bot", "content": "hi"}]}
    assert refused(ChatCompletionRequest, body).param == "messages.0.content"
