"""The lines of a batch: bytes in, values out, and answers as bytes. Pure.

The shapes are OpenAI's, as a control plane's batches have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from tidegate.protocol.openai import ENDPOINT_REQUESTS, ModelRequest, error_from_validation
from tidegate.protocol.replica import MAX_BODY_BYTES
from tidegate.protocol.work import BatchLine
from tidegate_runtime.errors import InputRefused, RequestRefused, RuntimeFault
from tidegate_runtime.server.body import parse
from tidegate_runtime.server.envelope import error_body, error_status


@dataclass(frozen=True)
class Line:
    """One line of an object: its number, from 1, and where it begins and ends in bytes."""

    number: int
    start: int
    end: int
    text: bytes


@dataclass(frozen=True)
class Outcome:
    """What a line came to, as a line of the results or of the errors."""

    text: bytes
    is_answer: bool


def split(blocks: Iterable[bytes], what: str, *, number: int = 1, start: int = 0) -> Iterator[Line]:
    """The lines that are not blank. Raises InputRefused for one that is too long."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_BODY_BYTES:
            raise InputRefused(
                f"{what} line {number + len(whole)}: {len(rest)} bytes and no end; a line has at "
                f"most {MAX_BODY_BYTES} bytes: split it"
            )
        for text in whole:
            yield from _line(number, start, text + b"\n")
            number, start = number + 1, start + len(text) + 1
    yield from _line(number, start, rest)


def _line(number: int, start: int, text: bytes) -> Iterator[Line]:
    if text.strip():
        yield Line(number, start, start + len(text), text)


def custom_id(text: bytes) -> str | None:
    """The id that a line gives itself, when it gives one."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
    given = value.get("custom_id") if isinstance(value, dict) else None
    return given if isinstance(given, str) else None


def read_request(text: bytes) -> ModelRequest:
    """What a line asks for. Raises RequestRefused that names field and value."""
    try:
        line = BatchLine.model_validate(from_json(text, allow_inf_nan=False))
    except ValidationError as error:
        detail = error_from_validation(error.errors(include_url=False))
        raise RequestRefused(detail.message, param=detail.param, code=detail.code) from error
    except ValueError as error:
        raise RequestRefused(f"The line is not JSON: {error}.", code="invalid_json") from error
    shape = ENDPOINT_REQUESTS.get(line.url)
    if shape is None:
        raise RequestRefused(
            f"url: {line.url[:80]!r} is no route; use {', '.join(ENDPOINT_REQUESTS)}.",
            param="url",
            code="invalid_url",
        )
    request: ModelRequest = parse(to_json(line.body), shape)
    if getattr(request, "stream", None):
        raise RequestRefused(
            "stream: True cannot be honoured in a batch; remove it.",
            param="stream",
            code="unsupported_value",
        )
    return request


def answered(line_id: str, line: Line, body: BaseModel) -> Outcome:
    """A line of the results."""
    return Outcome(_document(line_id, line, 200, body), is_answer=True)


def failed(line_id: str, line: Line, error: RuntimeFault) -> Outcome:
    """A line of the errors."""
    return Outcome(
        _document(line_id, line, error_status(error), error_body(error)), is_answer=False
    )


def _document(line_id: str, line: Line, status: int, body: BaseModel) -> bytes:
    response: dict[str, Any] = {"status_code": status, "request_id": line_id, "body": body}
    document = {
        "id": line_id,
        "custom_id": custom_id(line.text),
        "response": response,
        "error": None,
    }
    return to_json(document) + b"\n"
