"""Batches: a file of requests, answered line by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from tidegate.answers import BatchResult
from tidegate.errors import APIError, BatchFailed, TidegateError, UnexpectedAnswer
from tidegate.flow.pages import pages, read
from tidegate.flow.poll import poll
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.batch import TableInput, TableOutput
from tidegate.protocol.work import BatchObject, BatchStatus
from tidegate.routes import files

T = TypeVar("T")
ROOT = "/v1/batches"
WINDOW = "24h"


@dataclass(frozen=True)
class Terms:
    """What a caller may say of a batch, whatever its input."""

    metadata: Mapping[str, str] | None = None
    completion_window: str = WINDOW
    output_expires_after_s: int | None = None
    webhook: str | None = None

    def body(self) -> dict[str, Any]:
        """Its part of the request."""
        body: dict[str, Any] = {"completion_window": self.completion_window}
        if self.metadata:
            body["metadata"] = dict(self.metadata)
        if self.output_expires_after_s is not None:
            seconds = self.output_expires_after_s
            body["output_expires_after"] = {"anchor": "created_at", "seconds": seconds}
        if self.webhook is not None:
            body["webhook"] = self.webhook
        return body


def create(input_file_id: str, endpoint: str, terms: Terms) -> Flow[BatchObject]:
    body = {"input_file_id": input_file_id, "endpoint": endpoint, **terms.body()}
    reply = yield from ask(Request("POST", ROOT, json=body))
    return read(reply, BatchObject)


def transform(
    source: TableInput | Mapping[str, Any],
    target: TableOutput | Mapping[str, Any],
    endpoint: str,
    terms: Terms,
) -> Flow[BatchObject]:
    """From tables to tables; the server judges what they say."""
    body = {"input": _plain(source), "output": _plain(target), "endpoint": endpoint}
    reply = yield from ask(Request("POST", ROOT, json=body | terms.body()))
    return read(reply, BatchObject)


def start(file: BinaryIO, filename: str, endpoint: str, terms: Terms) -> Flow[BatchObject]:
    """Upload the input and begin; when that is refused, the uploaded file is taken back."""
    uploaded = yield from files.upload(file, filename, "batch")
    try:
        return (yield from create(uploaded.id, endpoint, terms))
    except APIError as refusal:
        try:
            yield from files.delete(uploaded.id)
        except TidegateError as error:
            refusal.add_note(f"the uploaded file {uploaded.id} is still there: {error}")
        raise refusal


def get(batch_id: str) -> Flow[BatchObject]:
    reply = yield from ask(Request("GET", _path(batch_id)))
    return read(reply, BatchObject)


def cancel(batch_id: str) -> Flow[BatchObject]:
    reply = yield from ask(Request("POST", _path(batch_id, "cancel")))
    return read(reply, BatchObject)


def retry(batch_id: str) -> Flow[BatchObject]:
    reply = yield from ask(Request("POST", _path(batch_id, "retry")))
    return read(reply, BatchObject)


def listing(make: Callable[[BatchObject], T]) -> Emitting[T]:
    return pages(Request("GET", ROOT), BatchObject, make)


def finished(
    batch_id: str, timeout_s: float | None, on_progress: Callable[[BatchObject], None] | None
) -> Flow[BatchObject]:
    """Wait for its end, whichever it is; raises WaitTimeout."""
    return poll(
        lambda: get(batch_id),
        lambda batch: batch.status.is_final,
        lambda batch: (f"batch {batch.id}", batch.status.value),
        timeout_s=timeout_s,
        on_change=on_progress,
    )


def completed(batch: BatchObject) -> BatchObject:
    """The batch, if it was completed; raises BatchFailed."""
    if batch.status is not BatchStatus.COMPLETED:
        raise BatchFailed(batch)
    return batch


def results(batch_id: str) -> Emitting[BatchResult]:
    """The lines that were answered, once the batch has ended."""
    batch = yield from finished(batch_id, None, None)
    if batch.output_file_id is not None:
        yield from files.content_lines(batch.output_file_id, _result)


def errors(batch_id: str) -> Emitting[BatchResult]:
    """The lines that failed, once the batch has ended."""
    batch = yield from finished(batch_id, None, None)
    if batch.error_file_id is not None:
        yield from files.content_lines(batch.error_file_id, _result)


def _result(line: str) -> BatchResult:
    try:
        return BatchResult.model_validate_json(line)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"a line of the batch's output is not one: {line[:200]!r}", status=200
        ) from error


def _plain(table: TableInput | TableOutput | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return dict(table)
    return table.model_dump(mode="json", exclude_none=True)


def _path(batch_id: str, *rest: str) -> str:
    return "/".join([ROOT, quote(batch_id, safe=""), *rest])
