"""The lines of a batch's output and error files, in OpenAI's shapes. Pure."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from tidegate.protocol.openai import ErrorDetail, ErrorResponse
from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate_controlplane.objects.base import ObjectStoreError
from tidegate_controlplane.store.tables import Batch, Invocation
from tidegate_controlplane.work.outcome import Failure

_CUT_OFF = {
    BatchStatus.CANCELLED: ("batch_cancelled", "the batch was cancelled before this request ended"),
    BatchStatus.EXPIRED: (
        "batch_expired",
        "this request could not be executed before the completion window expired",
    ),
}


def output_line(row: Invocation, result: bytes) -> bytes:
    """The line of a request that succeeded."""
    return _line(row, response=_response(row, 200, from_json(result)))


def error_line(row: Invocation, ending: BatchStatus) -> bytes:
    """The line of a request that did not succeed, in a batch that ends as `ending`.

    A replica's own refusal is a `response` with its status; what never got an answer has an
    `error`.
    """
    if row.status in (InvocationState.CANCELED, InvocationState.EXPIRED):
        code, message = _CUT_OFF.get(ending, _CUT_OFF[BatchStatus.CANCELLED])
        return _line(row, error={"code": code, "message": message})
    failure = Failure.model_validate(row.error)
    if row.attempt == 0:
        error = {"code": failure.code, "message": failure.message}
        return _line(row, error=error | ({"param": failure.param} if failure.param else {}))
    detail = ErrorDetail.model_validate(failure.model_dump())
    body = ErrorResponse(error=detail).model_dump()
    return _line(row, response=_response(row, failure.status_code, body))


def unreadable_line(row: Invocation, cause: ObjectStoreError) -> bytes:
    """The line of a request that succeeded, and whose answer cannot be read back."""
    code, message = _unreadable(cause)
    return _line(row, error={"code": code, "message": message})


def unreadable_text(cause: ObjectStoreError) -> str:
    """The same of a row of a table, in one sentence."""
    return ": ".join(_unreadable(cause))


def failure_text(row: Invocation | None, ending: BatchStatus) -> str:
    """Why a row of a table has no answer, in one sentence; `row` is None when it was never read."""
    if row is None or row.status in (InvocationState.CANCELED, InvocationState.EXPIRED):
        return ": ".join(_CUT_OFF.get(ending, _CUT_OFF[BatchStatus.CANCELLED]))
    failure = Failure.model_validate(row.error)
    return f"{failure.code or failure.status_code}: {failure.message}"


def file_name(batch: Batch, kind: str) -> str:
    return f"{batch.id}_{kind}.jsonl"


def _unreadable(cause: ObjectStoreError) -> tuple[str, str]:
    return "result_unreadable", f"the answer was stored and cannot be read back: {cause}"


def _response(row: Invocation, status: int, body: Any) -> dict[str, Any]:
    return {
        "status_code": status,
        "request_id": f"{row.id}-{row.lease_epoch}",
        "body": body,
    }


def _line(
    row: Invocation,
    *,
    response: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> bytes:
    document = {
        "id": row.id,
        "custom_id": row.custom_id,
        "response": response,
        "error": error,
    }
    return to_json(document) + b"\n"
