"""The queue: every durable request, and the indexes that it is read by."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, text
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import (
    UtcDateTime,
    index_where,
    json_value,
    moment,
    owner,
)

FAR = datetime(9999, 1, 1, tzinfo=UTC)
"""A deadline that never comes; not null, so that the order of deadlines is one range of an index.
"""
CLAIMABLE = "status = 'queued' AND NOT delayed"
DELAYED = "status = 'queued' AND delayed"


class Invocation(SQLModel, table=True):
    """One durable request: alone, or a line of a batch."""

    __table_args__ = (
        Index(
            "uq_invocation_idempotency_key",
            "project_id",
            "idempotency_key",
            unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"),
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "uq_invocation_batch_custom_id",
            "batch_id",
            "custom_id",
            unique=True,
            sqlite_where=text("custom_id IS NOT NULL"),
            postgresql_where=text("custom_id IS NOT NULL"),
        ),
        Index("uq_invocation_batch_line", "batch_id", "line_no", unique=True),
        index_where(
            "ix_invocation_claim",
            CLAIMABLE,
            "deployment_id",
            "priority",
            "project_id",
            "due_at",
            "affinity",
            "created_at",
            "id",
        ),
        index_where(
            "ix_invocation_backlog",
            "finished_at IS NULL",
            "deployment_id",
            "status",
            "created_at",
            "tokens",
        ),
        index_where("ix_invocation_delayed", DELAYED, "available_at"),
        index_where(
            "ix_invocation_expiry", "status = 'queued' AND expires_at IS NOT NULL", "expires_at"
        ),
        index_where("ix_invocation_lease", "lease_owner IS NOT NULL", "lease_owner"),
        index_where("ix_invocation_list", "batch_id IS NULL", "project_id", "id"),
        index_where("ix_invocation_batch_open", "finished_at IS NULL", "batch_id", "status"),
        # Whatever a batch says of its lines is read from here, never from the rows.
        index_where(
            "ix_invocation_batch_done",
            "finished_at IS NOT NULL AND batch_id IS NOT NULL",
            "batch_id",
            "status",
            "finished_at",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "replica_s",
        ),
        index_where(
            "ix_invocation_forget",
            "finished_at IS NOT NULL AND forgotten_at IS NULL",
            "finished_at",
        ),
        index_where(
            "ix_invocation_forget_early",
            "forget_at IS NOT NULL AND forgotten_at IS NULL",
            "forget_at",
        ),
        index_where(
            "ix_invocation_unstamped",
            "result_ttl_s IS NOT NULL AND forget_at IS NULL",
            "finished_at",
        ),
        index_where("ix_invocation_forgotten", "forgotten_at IS NOT NULL", "finished_at"),
    )

    id: str = Field(primary_key=True)
    project_id: str = owner("project")
    deployment_id: str | None = Field(default=None, description="null when no deployment matched")
    key_id: str | None = None
    model: str
    endpoint: str
    status: str
    priority: int = Field(default=0, description="lower runs first: -5 to 5 invocations, 10 lines")
    attempt: int = 0
    max_attempts: int = 3
    timeout_s: float
    request: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """The JSON body when small; otherwise it is the object `request_key`."""
    request_key: str | None = None
    request_sha256: str
    idempotency_key: str | None = None
    result: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """The answer's JSON body when small; otherwise it is the object `result_key`."""
    result_key: str | None = None
    error: dict[str, Any] | None = json_value(nullable=True)
    """`{"status_code", "message", "type", "param", "code"}` of the last failure."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    replica_s: float = Field(default=0.0, description="its share of the replicas' time")
    batch_id: str | None = Field(
        default=None, sa_column=Column(ForeignKey("batch.id"), nullable=True)
    )
    custom_id: str | None = None
    line_no: int | None = None
    lease_owner: str | None = None
    lease_epoch: int = 0
    lease_beat: int = Field(default=0, description="raised by each heartbeat")
    cancel_requested: bool = False
    webhook_id: str | None = Field(default=None, description="that its request named")
    created_at: datetime = moment()
    available_at: datetime = moment()
    """Not claimed before this time: the back-off between attempts."""
    delayed: bool = Field(default=False, description="`available_at` has not come yet")
    due_at: datetime = Field(default=FAR, sa_type=UtcDateTime, nullable=False)
    """Not claimed after this time, and claimed the earlier the nearer it is: an invocation's own
    deadline, or that of a line's batch."""
    affinity: str = Field(default="", description="equal for requests that should run together")
    tokens: int = Field(default=0, description="prompt and expected output, estimated")
    started_at: datetime | None = moment(nullable=True)
    finished_at: datetime | None = moment(nullable=True)
    expires_at: datetime | None = moment(nullable=True)
    deadline_at: datetime | None = moment(nullable=True)
    """Its answer is of no use after this time."""
    claimed_at: datetime | None = moment(nullable=True)
    """When its newest run began; `started_at` is when its first one did."""
    outline: dict[str, Any] | None = json_value(nullable=True)
    """`{"array", "items", "fields"}` of a body that is asked in pieces."""
    attempts: list[dict[str, Any]] | None = json_value(nullable=True)
    """Runs that ended, the oldest first; `domain.attempts` makes it."""
    result_bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    input_uri: str | None = Field(default=None, description="where the body is, if not here")
    input_etag: str | None = Field(default=None, description="of the object when it was accepted")
    result_ttl_s: float | None = Field(
        default=None, description="kept so long after its end; the platform's time when null"
    )
    forget_at: datetime | None = moment(nullable=True)
    """When that is, of a finished row that has a `result_ttl_s`."""
    forgotten_at: datetime | None = moment(nullable=True)
    """The body and the result were deleted; the row stays for a while."""
