"""Every error as an answer: OpenAI's envelope under `/v1`, an RFC 9457 problem elsewhere.

`fault_of` says what went wrong in the words of neither; the two shapes are made from that.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from pydantic import ValidationError

from tidegate.protocol.openai import ErrorDetail, ErrorResponse, error_from_validation
from tidegate.protocol.resources import Problem, ProblemIssue
from tidegate_controlplane.errors import Refused, Unauthenticated
from tidegate_controlplane.web.context import request_id_of

LOG = logging.getLogger("tidegate.web")
PROBLEM = "application/problem+json"
JSON = "application/json"


@dataclass(frozen=True)
class Fault:
    """What an error says to a caller."""

    status: int
    title: str
    kind: str
    """OpenAI's error `type`."""
    code: str
    message: str
    param: str | None = None
    issues: list[ProblemIssue] = field(default_factory=list)
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """An answer, ready to send."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes


def render(error: Exception, *, method: str, path: str, request_id: str) -> Rendered:
    """The answer to a request that failed with `error`; what is unexpected is logged, not told."""
    fault = fault_of(error, method=method, path=path)
    if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        LOG.error("%s %s failed [%s]", method, path, request_id, exc_info=error)
    if is_data_plane(path):
        media_type, body = JSON, error_body(fault)
    else:
        media_type, body = PROBLEM, _problem_body(fault, path, request_id)
    return Rendered(fault.status, media_type, _headers(fault), body)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler."""
    rendered = render(
        error,
        method=request.method,
        path=request.scope["path"],
        request_id=request_id_of(request),
    )
    return Response(
        rendered.body,
        status_code=rendered.status,
        media_type=rendered.media_type,
        headers=rendered.headers,
    )


def is_data_plane(path: str) -> bool:
    """Whether errors of this path have OpenAI's shape."""
    return path == "/v1" or path.startswith("/v1/")


# --- from an exception to a fault -----------------------------------------------------------------


def fault_of(error: Exception, *, method: str, path: str) -> Fault:
    """What `error` says; an unexpected one says nothing of the inside."""
    if isinstance(error, Refused):
        return _refused(error)
    if isinstance(error, ValidationError) and method in ("POST", "PUT", "PATCH"):
        return _misshapen(error, as_parameter=is_data_plane(path))
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _http(error, method, path)
    return Fault(
        status=500,
        title="Internal error",
        kind="server_error",
        code="internal_error",
        message="the platform failed while answering; its log has the cause under the request id",
    )


def _refused(error: Refused) -> Fault:
    challenge = {"www-authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
    return Fault(
        status=error.status,
        title=error.title,
        kind=error.kind,
        code=error.code,
        message=error.message,
        param=error.param,
        issues=[
            ProblemIssue(field=issue.field, value=_showable(issue.value), message=issue.message)
            for issue in error.issues
        ],
        retry_after_s=error.retry_after_s,
        headers=challenge,
    )


def _misshapen(error: ValidationError, *, as_parameter: bool) -> Fault:
    findings = error.errors(include_url=False)
    first = error_from_validation(findings)
    return Fault(
        status=400 if as_parameter else 422,
        title="Invalid body",
        kind=first.type,
        code=first.code or "invalid_value",
        message=first.message,
        param=first.param,
        issues=[
            ProblemIssue(
                field=".".join(str(part) for part in finding["loc"]),
                value=_showable(finding.get("input")),
                message=str(finding["msg"]).removeprefix("Value error, "),
            )
            for finding in findings
        ],
    )


def _http(error: HTTPException, method: str, path: str) -> Fault:
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    message, param = error.detail or status.phrase, None
    if status is HTTPStatus.NOT_FOUND:
        message = f"there is no route {method} {path[:256]}; /docs lists them all"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{method} is not allowed on {path[:256]}; /docs lists what is"
    elif isinstance(error.extra, list) and error.extra and isinstance(error.extra[0], dict):
        first = error.extra[0]
        param = str(first["key"]) if "key" in first else None
        message = f"{param}: {first.get('message', message)}" if param else message
    return Fault(
        status=int(status),
        title=status.phrase,
        kind="not_found_error" if status is HTTPStatus.NOT_FOUND else "invalid_request_error",
        code=code,
        message=message,
        param=param,
        headers=dict(error.headers or {}),
    )


def _showable(value: object) -> object:
    """A small plain value as it is, anything else by the start of its text."""
    if value is None or isinstance(value, bool | int):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


# --- from a fault to bytes ------------------------------------------------------------------------


def error_body(fault: Fault) -> bytes:
    """OpenAI's envelope."""
    detail = ErrorDetail(message=fault.message, type=fault.kind, param=fault.param, code=fault.code)
    return _encode(ErrorResponse(error=detail).model_dump())


def _problem_body(fault: Fault, path: str, request_id: str) -> bytes:
    return _encode(
        Problem(
            type=f"urn:tidegate:problem:{fault.code}",
            title=fault.title,
            status=fault.status,
            detail=fault.message,
            instance=path,
            code=fault.code,
            issues=fault.issues,
            request_id=request_id,
        ).model_dump()
    )


def _headers(fault: Fault) -> dict[str, str]:
    if fault.retry_after_s is None:
        return fault.headers
    return {**fault.headers, "retry-after": str(max(1, math.ceil(fault.retry_after_s)))}


def _encode(content: object) -> bytes:
    """ASCII JSON: a caller's value may hold characters that UTF-8 cannot."""
    return json.dumps(content, separators=(",", ":")).encode("ascii")
