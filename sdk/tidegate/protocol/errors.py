"""The errors of `/v1`."""

from __future__ import annotations

from typing import Any

from tidegate.protocol.wire import Answer


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Answer):
    """The error envelope of every `/v1` route, streamed or not."""

    error: ErrorDetail


def error_from_validation(errors: list[Any]) -> ErrorDetail:
    """Turn pydantic's error list into one OpenAI error that names the field and the value.

    `errors` is `ValidationError.errors()`; the first error speaks, the rest are counted.
    """
    first = errors[0]
    path = [str(part) for part in first["loc"] if not _is_union_branch(part)]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not path and ": " in message:
        path = [message.split(":", 1)[0]]
    param = ".".join(path) or None
    if first["type"] == "extra_forbidden":
        return ErrorDetail(
            message=f"Unsupported parameter: '{param}'. This server does not honour it; remove it.",
            type="invalid_request_error",
            param=param,
            code="unsupported_parameter",
        )
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
        return ErrorDetail(
            message=message, type="invalid_request_error", param=param, code="missing_parameter"
        )
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "…"
    return ErrorDetail(
        message=f"Invalid value for '{param or 'body'}': {message} (got {shown}).",
        type="invalid_request_error",
        param=param,
        code="invalid_value",
    )


def _is_union_branch(part: object) -> bool:
    """Whether a location part is a type name that pydantic adds for a union's branch."""
    text = str(part)
    return text in {"str", "int"} or text.startswith(("list[", "constrained-"))
