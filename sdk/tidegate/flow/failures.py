"""From an error answer to a typed error: OpenAI envelopes and RFC 9457 problems alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tidegate.errors import (
    APIError,
    AuthenticationFailed,
    BadRequest,
    Conflict,
    InvalidDeclaration,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    ServerError,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from tidegate.flow.steps import Reply
from tidegate.spec.errors import SpecIssue

BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    422: Unprocessable,
    429: RateLimited,
    503: Unavailable,
}
STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
}
"""An error event inside a stream has no HTTP status of its own; its type stands for one."""
SHOWN_CHARACTERS = 200


def failure(reply: Reply) -> APIError:
    """The typed error that an answer with a status of 400 or more stands for."""
    body = _parsed(reply.content)
    request_id = reply.headers.get("x-request-id")
    wait_s = retry_after_s(reply.headers)
    if isinstance(body.get("error"), dict):
        return from_envelope(body["error"], reply.status, request_id, wait_s)
    if "detail" in body or "title" in body:
        return _from_problem(body, reply.status, request_id, wait_s)
    text = reply.content[: SHOWN_CHARACTERS * 4].decode("utf-8", "replace").strip()
    return _class_of(reply.status)(
        f"HTTP {reply.status}: {text[:SHOWN_CHARACTERS] or 'no explanation given'}",
        status=reply.status,
        request_id=request_id,
        retry_after_s=wait_s,
    )


def from_envelope(
    error: Mapping[str, Any],
    status: int | None = None,
    request_id: str | None = None,
    wait_s: float | None = None,
) -> APIError:
    """The typed error of an OpenAI envelope's `error`, in a body or in a stream's event."""
    status = status or STATUS_OF_TYPE.get(str(error.get("type")), 500)
    return _class_of(status)(
        str(error.get("message") or f"HTTP {status}"),
        status=status,
        code=error.get("code"),
        param=error.get("param"),
        request_id=request_id,
        retry_after_s=wait_s,
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, None when it is absent or unreadable.

    A date counts from the answer's own `Date`, so the two clocks need not agree.
    """
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        then, sent = _date(value), _date(headers.get("date", ""))
    return max(0.0, (then - sent).total_seconds()) if then and sent else None


def _from_problem(
    body: Mapping[str, Any], status: int, request_id: str | None, wait_s: float | None
) -> APIError:
    issues = [
        SpecIssue(str(issue.get("field", "")), issue.get("value"), str(issue.get("message", "")))
        for issue in body.get("issues") or []
        if isinstance(issue, dict)
    ]
    kind = InvalidDeclaration if status == 422 else _class_of(status)
    return kind(
        str(body.get("detail") or body.get("title")),
        status=status,
        code=body.get("code"),
        request_id=request_id or body.get("request_id"),
        issues=issues,
        retry_after_s=wait_s,
    )


def _class_of(status: int) -> type[APIError]:
    return BY_STATUS.get(status, ServerError if status >= 500 else APIError)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
