"""The errors of `/v1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tidegate.protocol.wire import Answer

_BRANCH = re.compile(
    r"(str|int|float|bool)$|(list|dict|literal|(constrained|function)-\w+)(\[|$)|[A-Z]\w*$"
)
"""What pydantic adds to a location for a branch of a union: a type, or the name of a shape."""
_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
"""JSON's words for the types of values."""
_SHOWN_CHARS = 80
_ABSENT: Any = object()


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Answer):
    """The error envelope of every `/v1` route, streamed or not."""

    error: ErrorDetail


def error_from_validation(errors: Sequence[Any]) -> ErrorDetail:
    """Turn pydantic's error list into one OpenAI error that names the field and the value.

    `errors` is `ValidationError.errors()`. The first speaks; where it is of a union, the branch
    that got furthest does.
    """
    told, kinds = _most_telling(errors)
    path, given = _path(told), told.get("input")
    message = str(told["msg"]).removeprefix("Value error, ")
    head, separator, rest = message.partition(": ")
    if told["type"] == "value_error" and separator and " " not in head:
        path, message = [*path, *head.split(".")], rest
        given = _within(given, head)
    elif kinds:
        message = f"Input should be {' or '.join(kinds)}"
    param = ".".join(path) or None
    if told["type"] == "extra_forbidden":
        return _refusal(
            f"Unsupported parameter: '{param}'. This server does not honour it; remove it.",
            param,
            "unsupported_parameter",
        )
    if told["type"] == "missing":
        return _refusal(f"Missing required parameter: '{param}'.", param, "missing_parameter")
    got = "" if given is _ABSENT else f" (got {_shown(given)})"
    return _refusal(
        f"Invalid value for '{param or 'body'}': {message}{got}.", param, "invalid_value"
    )


def _most_telling(errors: Sequence[Any]) -> tuple[Any, list[str]]:
    """The error that speaks; and what kinds of value its place takes, when it is the kind that is
    wrong there.
    """
    first = errors[0]
    union = next((at for at, part in enumerate(first["loc"]) if _is_branch(first, at)), None)
    if union is None:
        return first, _kinds([first])
    branches = [each for each in errors if each["loc"][:union] == first["loc"][:union]]
    told = max(branches, key=lambda each: (len(_path(each)), each["type"] not in _KINDS))
    if told["type"] not in _KINDS:
        return told, []
    return told, _kinds([each for each in branches if _path(each) == _path(told)])


def _kinds(errors: Sequence[Any]) -> list[str]:
    known = (_KINDS.get(each["type"]) for each in errors)
    return list(dict.fromkeys(kind for kind in known if kind))


def _path(error: Any) -> list[str]:
    """The names and numbers that lead to the value."""
    return [str(part) for at, part in enumerate(error["loc"]) if not _is_branch(error, at)]


def _is_branch(error: Any, at: int) -> bool:
    names_a_field = error["type"] in ("extra_forbidden", "missing") and at == len(error["loc"]) - 1
    return not names_a_field and _BRANCH.match(str(error["loc"][at])) is not None


def _within(value: Any, dotted: str) -> Any:
    """The value at a dotted path of an object that was refused as a whole."""
    for part in dotted.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 3] + "…"


def _refusal(message: str, param: str | None, code: str) -> ErrorDetail:
    return ErrorDetail(message=message, type="invalid_request_error", param=param, code=code)
