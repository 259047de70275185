"""Rows as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic_core import to_json

from tidegate.protocol.batch import (
    BatchProgress,
    BatchUsage,
    InputTokensDetails,
    TableInput,
    TableOutput,
)
from tidegate.protocol.openai import ErrorDetail
from tidegate.protocol.work import (
    BatchCounts,
    BatchError,
    BatchErrors,
    BatchObject,
    BatchStatus,
    FileObject,
    InvocationState,
)
from tidegate.protocol.work import Invocation as InvocationObject
from tidegate_controlplane.domain.batch_progress import Tally
from tidegate_controlplane.store.tables import Batch, File, Invocation


def invocation_object(row: Invocation) -> InvocationObject:
    return InvocationObject(
        id=row.id,
        model=row.model,
        endpoint=row.endpoint,
        status=InvocationState(row.status),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        created_at=_unix(row.created_at),
        started_at=_unix_or_none(row.started_at),
        finished_at=_unix_or_none(row.finished_at),
        expires_at=_unix_or_none(row.expires_at),
        error=_error(row),
    )


def file_object(file: File) -> FileObject:
    purpose: Literal["batch", "batch_output"] = (
        "batch" if file.purpose == "batch" else "batch_output"
    )
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=_unix(file.created_at),
        expires_at=_unix_or_none(file.expires_at),
        filename=file.filename,
        purpose=purpose,
    )


def batch_object(batch: Batch, tally: Tally, progress: BatchProgress | None = None) -> BatchObject:
    """The batch, of whose lines `tally` is known."""
    moments: dict[str, Any] = {
        name: _unix_or_none(getattr(batch, name))
        for name in (
            "in_progress_at",
            "expires_at",
            "finalizing_at",
            "completed_at",
            "failed_at",
            "expired_at",
            "cancelling_at",
            "cancelled_at",
        )
    }
    errors = [BatchError.model_validate(error) for error in batch.errors or []]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=BatchStatus(batch.status),
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=_unix(batch.created_at),
        request_counts=BatchCounts(
            total=batch.total, completed=tally.succeeded, failed=tally.failed
        ),
        usage=_usage(tally),
        metadata=batch.labels,
        input=TableInput.model_validate_json(to_json(batch.source)) if batch.source else None,
        output=TableOutput.model_validate_json(to_json(batch.target)) if batch.target else None,
        retry_of=batch.retry_of,
        progress=progress,
        **moments,
    )


def _usage(tally: Tally) -> BatchUsage:
    return BatchUsage(
        input_tokens=tally.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=tally.cached_tokens),
        output_tokens=tally.completion_tokens,
        total_tokens=tally.tokens,
    )


def _error(row: Invocation) -> ErrorDetail | None:
    """Also of a queued row: why its last run ended."""
    return ErrorDetail.model_validate(row.error) if row.error else None


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _unix_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else _unix(moment)
