"""Durable work on the wire: invocations (ours), files and batches (OpenAI's shapes).

Source: the OpenAI API reference (files, batches objects). Times are unix seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from tidegate.protocol.batch import (
    BatchProgress,
    BatchUsage,
    CompletionWindow,
    ExpiresAfter,
    Metadata,
    TableInput,
    TableOutput,
)
from tidegate.protocol.openai import Answer, ErrorDetail, ModelName, WireModel

MAX_BATCH_LINES = 50_000
MAX_BATCH_BYTES = 200 * 1024 * 1024
MAX_PRIORITY = 5
MAX_ATTEMPTS = 10
MAX_INVOCATION_ITEMS = 1_000_000
"""Items of `input` or `prompt` in one invocation: a request that is answered at once takes fewer
(`openai.MAX_EMBEDDING_INPUTS`, `openai.MAX_SEQUENCES`)."""

Endpoint = Literal[
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/score"
]
"""Those that do a model's work."""


class InvocationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self not in (InvocationState.QUEUED, InvocationState.RUNNING)


class InvocationAttempt(Answer):
    """A run that ended; the last one of an invocation that succeeded has no error."""

    attempt: int
    started_at: int | None = None
    ended_at: int
    replica_id: str | None = Field(default=None, description="the last replica that was asked")
    error: ErrorDetail | None = None


class Invocation(Answer):
    """One durable request. `GET …/{id}/result` answers the model's own answer, once succeeded."""

    id: str
    object: Literal["invocation"] = "invocation"
    model: str
    endpoint: str
    status: InvocationState
    attempt: int = Field(default=0, description="runs begun so far")
    max_attempts: int = 3
    priority: int = Field(default=0, description="the higher runs first")
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    expires_at: int | None = Field(default=None, description="when it expires if not begun")
    deadline_at: int | None = Field(default=None, description="when its answer is of no use")
    input_uri: str | None = Field(default=None, description="where its body is read from")
    items: int | None = Field(default=None, description="of a body that is asked in pieces")
    result_bytes: int | None = None
    error: ErrorDetail | None = None
    attempts: list[InvocationAttempt] = Field(default=[], description="the last 20 that ended")


class InvocationReference(WireModel):
    """A body that lies elsewhere: it is read from `input_uri` when the invocation runs."""

    model: ModelName
    endpoint: Endpoint
    input_uri: str = Field(
        min_length=1,
        max_length=2048,
        description="s3://bucket/key of a JSON body of `endpoint`, in a bucket that is allowed",
    )


class RedriveRequest(WireModel):
    """Which invocations shall be run again."""

    status: Literal["dead", "failed"] = "dead"
    model: ModelName | None = None
    after: str | None = Field(
        default=None, max_length=64, description="the `last_id` of the answer before"
    )
    limit: int = Field(default=100, ge=1, le=1000)


class RedriveAnswer(Answer):
    redriven: int = Field(description="back in the queue")
    skipped: int = Field(default=0, description="no deployment serves their model now")
    last_id: str | None = Field(default=None, description="`after` of the next request")
    has_more: bool = False


class InvocationEvent(Answer):
    """What happens to an invocation. `text_begins` says that text of before is void."""

    type: Literal["state", "text_begins", "text", "progress"]
    invocation: Invocation | None = Field(default=None, description="of `state`")
    attempt: int | None = Field(default=None, description="of all but `state`")
    index: int | None = Field(default=None, description="of `text`: which choice")
    text: str | None = Field(default=None, description="of `text`: what is new")
    tokens: int | None = Field(default=None, description="of `progress`: of output so far")
    items_done: int | None = Field(default=None, description="of `progress`")
    items: int | None = Field(default=None, description="of `progress`: in all")


class InvocationDeleted(Answer):
    """Its request and result are gone; `GET …/{id}` still says that it was there, for a while."""

    id: str
    object: Literal["invocation"] = "invocation"
    deleted: bool = True


class InvocationList(Answer):
    object: Literal["list"] = "list"
    data: list[Invocation]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileObject(Answer):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class FileList(Answer):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileDeleted(Answer):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (
            BatchStatus.FAILED,
            BatchStatus.COMPLETED,
            BatchStatus.EXPIRED,
            BatchStatus.CANCELLED,
        )


class BatchRequest(WireModel):
    """`input_file_id`; or `input` and `output`, which are not OpenAI's."""

    input_file_id: str | None = Field(default=None, min_length=1, max_length=64)
    endpoint: Endpoint
    completion_window: CompletionWindow
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    input: TableInput | None = None
    output: TableOutput | None = None
    webhook: str | None = Field(
        default=None,
        max_length=64,
        description="a webhook's id (ours): it is told how this ends, whatever its events",
    )

    @model_validator(mode="after")
    def _has_one_input(self) -> BatchRequest:
        if (self.input_file_id is None) == (self.input is None):
            raise ValueError("input_file_id: give exactly one of 'input_file_id' and 'input'")
        if (self.input is None) != (self.output is None):
            raise ValueError("output: 'input' and 'output' go together")
        if self.input is not None and self.output_expires_after is not None:
            raise ValueError("output_expires_after: only files expire; 'output' names a place")
        return self


class BatchError(Answer):
    code: str
    message: str
    param: str | None = None
    line: int | None = Field(default=None, description="line of the input file, from 1")


class BatchErrors(Answer):
    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchCounts(Answer):
    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchObject(Answer):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str | None = None
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: BatchCounts = BatchCounts()
    usage: BatchUsage = BatchUsage()
    metadata: dict[str, str] | None = None
    input: TableInput | None = None
    output: TableOutput | None = None
    retry_of: str | None = Field(default=None, description="the batch whose lines are run again")
    progress: BatchProgress | None = Field(
        default=None, description="since its lines began; left out of lists"
    )


class BatchList(Answer):
    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class BatchLine(WireModel):
    """One line of a batch's input file. `body` is a request of the batch's endpoint."""

    custom_id: str = Field(min_length=1, max_length=512, pattern=r"^[^\x00]+$")
    method: Literal["POST"]
    url: str
    body: dict[str, Any]
