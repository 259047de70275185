"""Calls are found in text as it is written, whatever the pieces it comes in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_runtime.tools.events import Argued, Began, Broke, Ended, Event, Said
from tidegate_runtime.tools.parser import ToolCallParser
from tidegate_runtime.tools.syntax import HERMES, LLAMA3, MISTRAL, SYNTAXES, CallSyntax

FUNCTIONS = ("weather", "now")
WEATHER = '{"name": "weather", "arguments": {"city": "Bern"}}'
NOW = '{"name": "now", "arguments": {}}'


@dataclass
class Read:
    """All that a text shows: the words as streamed, the words of a whole answer, the calls."""

    streamed: str = ""
    whole: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    broken: int = 0
    events: list[Event] = field(default_factory=list)


def read(syntax: CallSyntax, pieces: Iterable[str]) -> Read:
    parser, shown = ToolCallParser(syntax, FUNCTIONS), Read()
    for piece in pieces:
        shown.events += parser.push(piece)
    shown.events += parser.finish()
    name, arguments = "", ""
    for event in shown.events:
        match event:
            case Said(text):
                shown.streamed += text
                shown.whole += text
            case Began(begun):
                name, arguments = begun, ""
            case Argued(text):
                arguments += text
            case Ended():
                shown.calls.append((name, arguments))
            case Broke(text, rest):
                shown.broken += 1
                shown.streamed += rest
                shown.whole += text
    return shown


def calls_of(syntax: CallSyntax, text: str) -> list[tuple[str, str]]:
    return read(syntax, [text]).calls


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        (HERMES, f"<tool_call>\n{WEATHER}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>"),
        (HERMES, f"<tool_call>[{WEATHER}, {NOW}]</tool_call>"),
        (HERMES, f"<tool_call>{WEATHER}</tool_call><tool_call>{NOW}"),
        (LLAMA3, f"{WEATHER}; {NOW}".replace("arguments", "parameters")),
        (LLAMA3, f"<|python_tag|>{WEATHER};{NOW}"),
        (MISTRAL, f"[TOOL_CALLS] [{WEATHER}, {NOW}]"),
        (MISTRAL, f'[TOOL_CALLS][{WEATHER[:-1]}, "id": "a1b2c3d4e"}},\n{NOW}]'),
    ],
)
def test_each_family_writes_its_calls_in_its_own_way(syntax: CallSyntax, text: str) -> None:
    shown = read(syntax, [text])
    assert shown.calls == [("weather", '{"city": "Bern"}'), ("now", "{}")]
    assert (shown.streamed, shown.broken) == ("", 0)


def test_words_around_calls_are_kept_and_the_space_between_goes() -> None:
    text = f"Let me see.\n<tool_call>\n{NOW}\n</tool_call>\nThat was it. "
    shown = read(HERMES, [text])
    assert shown.streamed == "Let me see.That was it. "
    assert shown.calls == [("now", "{}")]


def test_a_name_comes_before_its_arguments_and_they_come_as_they_are_written() -> None:
    parser = ToolCallParser(HERMES, FUNCTIONS)
    assert parser.push('<tool_call>{"name": "wea') == []
    assert parser.push('ther", "arguments": {"ci') == [Began("weather"), Argued('{"ci')]
    assert parser.push('ty": "Be') == [Argued('ty": "Be')]
    assert parser.push('rn"}') == [Argued('rn"}')]
    assert parser.push("}") == [Ended()]


def test_arguments_may_come_before_the_name() -> None:
    text = '<tool_call>{"arguments": {"city": "Bern"}, "name": "weather"}</tool_call>'
    assert calls_of(HERMES, text) == [("weather", '{"city": "Bern"}')]


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    assert calls_of(HERMES, '<tool_call>{"name": "now"}</tool_call>') == [("now", "{}")]


@pytest.mark.parametrize(
    "inside",
    [
        '{"city": "}{<tool_call></tool_call>\\"]["}',
        '{"a": {"b": [1, {"c": null}]}, "d": -1.5e3}',
        '{"city": "Zürich 東京 🚀 \\u00e9"}',
    ],
)
def test_arguments_may_hold_whatever_json_holds(inside: str) -> None:
    text = f'<tool_call>{{"name": "weather", "arguments": {inside}}}</tool_call>'
    assert calls_of(HERMES, text) == [("weather", inside)]


BROKEN = [
    "<tool_call>\nweather(Bern)\n</tool_call>",
    '<tool_call>{"name": "missiles", "arguments": {}}</tool_call>',
    '<tool_call>{"city": "Bern"}</tool_call>',
    '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "now", "arguments": "{}"}</tool_call>',
    '<tool_call>{"name": "now", "arguments": {}, "arguments": {}}</tool_call>',
    '<tool_call>{"name": "now", "arguments": {}}}</tool_call>'.replace("}}}", "]}"),
    '<tool_call>{"name": "now", "arguments": {"a": nul}}</tool_call>',
    '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "now", "arguments": {"a": "\n"}}</tool_call>',
    '<tool_call>{"name": 5}</tool_call>',
    "<tool_call>{}</tool_call>",
    "<tool_call>[]</tool_call>",
    '<tool_call>{"name": "now", "arguments": {"a": ' + "[" * 70,
    '<tool_call>{"name": "weather", "arguments": {"city": "Be',
    "<tool_call>",
    "<tool_",
    "a < b </tool_call> c",
    '{"name": "now", "arguments": {}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_call_comes_back_as_it_was_written(text: str) -> None:
    shown = read(HERMES, [text])
    assert (shown.whole, shown.calls) == (text, [])


def test_a_call_that_breaks_after_it_was_told_leaves_the_rest_as_words() -> None:
    begun = '<tool_call>{"name": "weather", "arguments": {"city": 1} <'
    shown = read(HERMES, [begun])
    assert [type(event) for event in shown.events] == [Began, Argued, Broke, Said]
    assert shown.streamed == " <"
    assert shown.whole == begun


def test_a_call_after_a_broken_one_is_found() -> None:
    text = f'<tool_call>{{"name": "now", "arguments": {{"a": 1\n<tool_call>{NOW}</tool_call>'
    assert calls_of(HERMES, text) == [("now", "{}")]


@pytest.mark.parametrize(
    "text", ['{"answer": 5}', '{"name": "Bern", "parameters": {}}', "{", " {}"]
)
def test_an_answer_in_json_is_no_call(text: str) -> None:
    shown = read(LLAMA3, [text])
    assert (shown.streamed, shown.calls) == (text, [])


def test_only_the_beginning_of_an_answer_may_be_a_bare_call() -> None:
    text = f"For example: {NOW}"
    assert read(LLAMA3, [text]).streamed == text


PARTS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
            "<|python_tag|>",
            "\n",
            " ",
            ";",
            "[",
            "]",
        ),
        *(WEATHER, NOW, NOW.replace("arguments", "parameters"), '{"name": "now"}', "{", "}", ","),
        *('{"name": "now", "arguments": {', '"a": "b\\""', ": 1", "Hello", "<", "é🚀", "\\", '"'),
    ]
)


@given(st.sampled_from(sorted(SYNTAXES)), st.lists(PARTS, max_size=12), st.data())
def test_where_the_text_is_cut_changes_nothing(
    family: str, parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    syntax = SYNTAXES[family]
    at_once, cut, letters = read(syntax, [text]), read(syntax, pieces), read(syntax, list(text))
    for other in (cut, letters):
        assert (other.streamed, other.whole) == (at_once.streamed, at_once.whole)
        assert (other.calls, other.broken) == (at_once.calls, at_once.broken)


@given(st.sampled_from(sorted(SYNTAXES)), st.lists(PARTS, max_size=12))
def test_nothing_is_lost_and_every_call_is_json(family: str, parts: list[str]) -> None:
    text = "".join(parts)
    shown = read(SYNTAXES[family], [text])
    for name, arguments in shown.calls:
        assert name in FUNCTIONS
        assert isinstance(json.loads(arguments), dict)
        assert arguments in text or arguments == "{}"
    if not shown.calls:
        assert shown.whole == text
