"""Files, and the batches that read them; the lines are invocations."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, ForeignKey
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import index_where, json_value, moment, owner


class File(SQLModel, table=True):
    __table_args__ = (index_where("ix_file_expiry", "deleted_at IS NULL", "expires_at"),)

    id: str = Field(primary_key=True)
    project_id: str = owner("project")
    filename: str
    purpose: str
    bytes: int
    sha256: str
    object_key: str
    created_at: datetime = moment()
    expires_at: datetime | None = moment(nullable=True)
    deleted_at: datetime | None = moment(nullable=True)


class Batch(SQLModel, table=True):
    id: str = Field(primary_key=True)
    project_id: str = owner("project")
    status: str = Field(index=True)
    endpoint: str
    model: str | None = None
    input_file_id: str | None = Field(
        default=None, sa_column=Column(ForeignKey("file.id"), nullable=True, index=True)
    )
    completion_window: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[dict[str, Any]] | None = json_value(nullable=True)
    labels: dict[str, str] | None = Field(
        sa_column=Column("metadata", JSON(none_as_null=True), nullable=True)
    )
    total: int = 0
    key_id: str | None = None
    output_expires_after_s: int | None = None
    retry_of: str | None = Field(
        default=None, index=True, description="whose unanswered lines it runs again"
    )
    source: dict[str, Any] | None = json_value(nullable=True)
    """The tables it reads, when it reads no file: a `TableInput`."""
    target: dict[str, Any] | None = json_value(nullable=True)
    """Where it writes them: a `TableOutput`."""
    parts: list[dict[str, Any]] | None = json_value(nullable=True)
    """The objects under `source` as they were when it began: key, etag, rows."""
    tally: dict[str, Any] | None = json_value(nullable=True)
    """How its lines ended, once it has; counted from them before."""
    webhook_id: str | None = Field(default=None, description="that its request named")
    version: int = 1
    created_at: datetime = moment()
    in_progress_at: datetime | None = moment(nullable=True)
    expires_at: datetime | None = moment(nullable=True)
    finalizing_at: datetime | None = moment(nullable=True)
    completed_at: datetime | None = moment(nullable=True)
    failed_at: datetime | None = moment(nullable=True)
    expired_at: datetime | None = moment(nullable=True)
    cancelling_at: datetime | None = moment(nullable=True)
    cancelled_at: datetime | None = moment(nullable=True)
