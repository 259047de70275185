"""Errors in OpenAI's envelope: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from litestar.types import Send

from tidegate.protocol.openai import ErrorDetail, ErrorResponse
from tidegate_runtime.errors import (
    EngineDead,
    GenerationFailed,
    GrammarTooCostly,
    RequestRefused,
    RuntimeFault,
)
from tidegate_runtime.grammar.source import TOO_COMPLEX

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable"}


def error_status(error: RuntimeFault) -> int:
    """The HTTP status that answers an error."""
    if isinstance(error, RequestRefused):
        return error.status
    if isinstance(error, GrammarTooCostly):
        return 400
    return 503 if isinstance(error, EngineDead) else 500


def error_body(error: RuntimeFault) -> ErrorResponse:
    """The envelope of an error."""
    if isinstance(error, RequestRefused):
        kind = _TYPES.get(error.status, "invalid_request_error")
        return _envelope(error.message, kind, error.param, error.code)
    if isinstance(error, GrammarTooCostly):
        return _envelope(error.message, "invalid_request_error", None, TOO_COMPLEX)
    if isinstance(error, EngineDead):
        return _envelope(error.message, "service_unavailable", None, "engine_dead")
    if isinstance(error, GenerationFailed):
        return _envelope(error.message, "server_error", None, "generation_failed")
    return _envelope(error.message, "server_error", None, "internal_error")


def error_headers(error: RuntimeFault) -> dict[str, str]:
    """Headers that go with an error."""
    if isinstance(error, RequestRefused) and error.retry_after_s is not None:
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, EngineDead):
        return {"Retry-After": "1"}
    if isinstance(error, RequestRefused) and error.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {}


async def send_refusal(error: RequestRefused, send: Send) -> None:
    """Answer a request with an error, outside the router."""
    body = error_body(error).model_dump_json().encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= error_headers(error)
    await send(
        {
            "type": "http.response.start",
            "status": error_status(error),
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _envelope(message: str, kind: str, param: str | None, code: str | None) -> ErrorResponse:
    return ErrorResponse(error=ErrorDetail(message=message, type=kind, param=param, code=code))
