"""Log lines: one JSON object each, or the same for people.

A line has `time`, `level`, `logger` and `message`; then what the process is (`replica`,
`deployment`), what it works on (`request`), what the record brought along (`extra={"fields": …}`),
and `error` with a traceback. No line holds the text of a prompt or of an answer.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["json", "text"]
ERROR_CHARS = 8000
"""The end of a longer traceback is kept: readers of a log cut lines of 16 KiB."""
_CHATTY = ("httpx", "httpx2", "botocore", "filelock", "uvicorn.error")
_REQUEST: ContextVar[str | None] = ContextVar("request", default=None)


@contextmanager
def working_on(request_id: str | None) -> Iterator[None]:
    """Lines that are logged inside carry the request's id, also those of tasks begun inside."""
    token = _REQUEST.set(request_id)
    try:
        yield
    finally:
        _REQUEST.reset(token)


def log_to_stderr(
    form: LogFormat, level: int = logging.INFO, fields: Mapping[str, str] | None = None
) -> None:
    """Send every logger's records from `level` up to standard error, each with `fields`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(form, fields or {}))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """A record with its traceback on a single line, so a reader of lines never sees half of one."""

    def __init__(self, form: LogFormat, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._form = form
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        return json.dumps(line, default=str) if self._form == "json" else as_text(line)

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        if request := _REQUEST.get():
            line["request"] = request
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)[-ERROR_CHARS:]
        return line


def readable(text: str) -> str:
    """A line for people, whichever way it was written; what is no log line stays as it is."""
    line = parsed(text)
    return text if line is None else as_text(line)


def parsed(text: str) -> dict[str, Any] | None:
    """The object that a JSON log line is; None for anything else, such as a native crash."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"time", "level", "message"} <= line.keys() else None


def as_text(line: Mapping[str, Any]) -> str:
    """`TIME LEVEL logger message key=value …`, on one line and without control characters."""
    known = ("time", "level", "logger", "message", "error")
    words = [line["time"], str(line["level"]).upper(), line.get("logger", ""), line["message"]]
    words += [f"{key}={_value(value)}" for key, value in line.items() if key not in known]
    if error := line.get("error"):
        words.append("\n" + str(error))
    return _visible(" ".join(str(word) for word in words if word != ""))


def _value(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text)


def _visible(text: str) -> str:
    lines = text.replace("\r", "").split("\n")
    return " ⏎ ".join("".join(c if c.isprintable() else "�" for c in line) for line in lines)
