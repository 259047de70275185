"""Log lines, as every process of the platform writes them and the CLI shows them."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from tidegate.telemetry.logs import ERROR_CHARS, LineFormatter, readable, working_on

JSON = LineFormatter("json", {"replica": "rep_1"})
TEXT = LineFormatter("text", {"replica": "rep_1"})


def record(message: str = "ready", error: bool = False, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("tidegate.x", logging.WARNING, __file__, 1, message, (), None)
    made.created = 1_700_000_000.25
    made.fields = fields
    if error:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_is_one_object_that_says_when_who_and_what() -> None:
    assert json.loads(JSON.format(record(status=200))) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "tidegate.x",
        "message": "ready",
        "replica": "rep_1",
        "status": 200,
    }


def test_a_line_carries_the_id_of_the_request_that_is_worked_on() -> None:
    with working_on("req_1"):
        assert json.loads(JSON.format(record()))["request"] == "req_1"
    assert "request" not in json.loads(JSON.format(record()))


@pytest.mark.parametrize("formatter", [JSON, TEXT])
def test_nothing_that_a_client_sends_can_look_like_another_line(formatter: LineFormatter) -> None:
    forged = formatter.format(record("a\r\nb\x1b[2J", path='/x\n{"level": "error"}'))
    assert len(forged.splitlines()) == 1
    assert forged.isprintable()


@pytest.mark.parametrize("formatter", [JSON, TEXT])
def test_a_traceback_stays_on_its_line_and_keeps_its_end(formatter: LineFormatter) -> None:
    try:
        raise RuntimeError("x" * 2 * ERROR_CHARS + " and why")
    except RuntimeError:
        line = formatter.format(record(error=True))
    assert len(line.splitlines()) == 1
    assert "xxx and why" in line
    assert len(line) < 2 * ERROR_CHARS


def test_people_read_the_same_line_from_either_format() -> None:
    shown = readable(JSON.format(record(path="/v1/x y", status=200)))
    assert shown == TEXT.format(record(path="/v1/x y", status=200))
    assert shown == (
        '2023-11-14T22:13:20.250Z WARNING tidegate.x ready replica=rep_1 path="/v1/x y" status=200'
    )


@pytest.mark.parametrize("text", ["Fatal Python error: Aborted", "12", '{"a": 1}', "", '{"time'])
def test_what_is_no_log_line_is_shown_as_it_is(text: str) -> None:
    assert readable(text) == text
