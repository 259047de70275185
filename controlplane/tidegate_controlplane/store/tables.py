"""Every table. Rows hold facts; what they may become is in `domain.states`.

Times are UTC (`datetime` with zone). A `version` column is raised by each change and compared
before it, so a writer that read an older row changes nothing.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

DEFAULT_PROJECT = "prj_default"

FAR = datetime(9999, 1, 1, tzinfo=UTC)
"""A deadline that never comes; not null, so that the order of deadlines is one range of an index.
"""
CLAIMABLE = "status = 'queued' AND NOT delayed"
DELAYED = "status = 'queued' AND delayed"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone, so it is put back when read.

    PostgreSQL is told to answer in UTC.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without a zone cannot be stored: {value!r}")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None else None


def _moment(nullable: bool = False, index: bool = False) -> Any:
    return Field(
        default=None if nullable else ...,
        sa_type=UtcDateTime,
        nullable=nullable,
        index=index,
    )


def _json(nullable: bool = False) -> Any:
    return Field(sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def _owner(table: str) -> Any:
    return Field(sa_column=Column(ForeignKey(f"{table}.id"), nullable=False, index=True))


def _index_where(name: str, where: str, *columns: str) -> Index:
    """An index of some rows: of unfinished work, it stays small however much is finished.

    A query uses it when it says `where` in so many words, without parameters.
    """
    condition = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


class Project(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = _moment()


class ApiKey(SQLModel, table=True):
    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    name: str
    role: str
    digest: str = Field(description="HMAC-SHA-256 of the secret, hex")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    created_at: datetime = _moment()
    revoked_at: datetime | None = _moment(nullable=True)


class Model(SQLModel, table=True):
    __table_args__ = (UniqueConstraint("project_id", "source", "task"),)

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    source: str
    task: str
    created_at: datetime = _moment()


class ModelVersion(SQLModel, table=True):
    """Immutable: what the files of a source were when a plan read them."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("model_id", "digest"),)

    id: str = Field(primary_key=True)
    model_id: str = _owner("model")
    digest: str
    revision: str | None = None
    facts: dict[str, Any] = _json()
    created_at: datetime = _moment()


class Deployment(SQLModel, table=True):
    __table_args__ = (
        Index(
            "uq_deployment_living_name",
            "project_id",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    name: str
    mode: str
    spec: dict[str, Any] = _json()
    plan: dict[str, Any] = _json()
    """The resolved plan of `spec`, with scaling bounds; `domain.plan` makes it."""
    generation: int = 1
    observed_generation: int = 0
    revision_id: str = Field(description="the revision wanted")
    serving_revision_id: str | None = Field(default=None, description="the one that serves")
    phase: str
    message: str = ""
    conditions: list[dict[str, Any]] = _json()
    desired_replicas: int = 0
    forgiven_at: datetime | None = _moment(nullable=True)
    """Failures of replicas before this time no longer count: someone asked to try again."""
    held_at: list[str] = Field(
        default_factory=list, sa_column=Column(JSON(none_as_null=True), nullable=False)
    )
    """Provisioners that may hold something for it."""
    version: int = 1
    created_at: datetime = _moment()
    updated_at: datetime = _moment()
    deleted_at: datetime | None = _moment(nullable=True)


class Revision(SQLModel, table=True):
    """Immutable: what its replicas are started with."""

    __table_args__ = (UniqueConstraint("deployment_id", "number"),)

    id: str = Field(primary_key=True)
    deployment_id: str = _owner("deployment")
    number: int
    generation: int
    fingerprint: str = Field(description="equal fingerprints need no new replicas")
    model_version_id: str = _owner("model_version")
    spec: dict[str, Any] = _json()
    plan: dict[str, Any] = _json()
    created_at: datetime = _moment()


class Replica(SQLModel, table=True):
    id: str = Field(primary_key=True)
    deployment_id: str = _owner("deployment")
    revision_id: str = _owner("revision")
    phase: str = Field(index=True)
    reason: str | None = None
    message: str | None = None
    refused: bool = Field(default=False, description="starting again cannot help")
    pid: int | None = None
    process_start: int | None = Field(
        default=None, description="the process's start time in clock ticks, so a pid is not reused"
    )
    port: int | None = None
    where: str | None = Field(default=None, description="for people; None on this machine")
    cold_start_s: float | None = None
    version: int = 1
    created_at: datetime = _moment()
    updated_at: datetime = _moment()
    ready_at: datetime | None = _moment(nullable=True)
    finished_at: datetime | None = _moment(nullable=True)


class Rollout(SQLModel, table=True):
    """How one revision takes over from another; at most one at a time in a deployment."""

    __table_args__ = (
        Index(
            "uq_rollout_open",
            "deployment_id",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    deployment_id: str = _owner("deployment")
    from_revision_id: str = _owner("revision")
    to_revision_id: str = _owner("revision")
    options: dict[str, Any] = _json()
    """The declaration's `rollout` when it began: what is changed later is for the next one."""
    phase: str
    step: int = 0
    weight: float = Field(default=0.0, description="percent of the requests on the new revision")
    requested: str | None = Field(default=None, description="promote or abort, once asked for")
    reason: str
    message: str
    comparison: dict[str, Any] | None = _json(nullable=True)
    version: int = 1
    created_at: datetime = _moment()
    updated_at: datetime = _moment()
    finished_at: datetime | None = _moment(nullable=True)


class Event(SQLModel, table=True):
    """Append-only: what happened to an object, in one sentence."""

    __table_args__ = (Index("ix_event_deployment_seq", "deployment_id", "seq"),)

    seq: int | None = Field(default=None, primary_key=True)
    project_id: str = _owner("project")
    deployment_id: str | None = None
    object: str
    severity: str
    reason: str
    message: str
    time: datetime = _moment()


class Decision(SQLModel, table=True):
    """Append-only, and bounded for each deployment: what the autoscaler decided, and from what."""

    __table_args__ = (Index("ix_decision_deployment_seq", "deployment_id", "seq"),)

    seq: int | None = Field(default=None, primary_key=True)
    deployment_id: str = Field(sa_column=Column(ForeignKey("deployment.id"), nullable=False))
    desired: int
    called_for: int
    term: str
    sentence: str
    inputs: dict[str, Any] = _json()
    time: datetime = _moment()


class File(SQLModel, table=True):
    __table_args__ = (_index_where("ix_file_expiry", "deleted_at IS NULL", "expires_at"),)

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    filename: str
    purpose: str
    bytes: int
    sha256: str
    object_key: str
    created_at: datetime = _moment()
    expires_at: datetime | None = _moment(nullable=True)
    deleted_at: datetime | None = _moment(nullable=True)


class Batch(SQLModel, table=True):
    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
    status: str = Field(index=True)
    endpoint: str
    model: str | None = None
    input_file_id: str | None = Field(
        default=None, sa_column=Column(ForeignKey("file.id"), nullable=True, index=True)
    )
    completion_window: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[dict[str, Any]] | None = _json(nullable=True)
    labels: dict[str, str] | None = Field(
        sa_column=Column("metadata", JSON(none_as_null=True), nullable=True)
    )
    total: int = 0
    key_id: str | None = None
    output_expires_after_s: int | None = None
    retry_of: str | None = Field(
        default=None, index=True, description="whose unanswered lines it runs again"
    )
    source: dict[str, Any] | None = _json(nullable=True)
    """The tables it reads, when it reads no file: a `TableInput`."""
    target: dict[str, Any] | None = _json(nullable=True)
    """Where it writes them: a `TableOutput`."""
    parts: list[dict[str, Any]] | None = _json(nullable=True)
    """The objects under `source` as they were when it began: key, etag, rows."""
    tally: dict[str, Any] | None = _json(nullable=True)
    """How its lines ended, once it has; counted from them before."""
    webhook_id: str | None = Field(default=None, description="that its request named")
    version: int = 1
    created_at: datetime = _moment()
    in_progress_at: datetime | None = _moment(nullable=True)
    expires_at: datetime | None = _moment(nullable=True)
    finalizing_at: datetime | None = _moment(nullable=True)
    completed_at: datetime | None = _moment(nullable=True)
    failed_at: datetime | None = _moment(nullable=True)
    expired_at: datetime | None = _moment(nullable=True)
    cancelling_at: datetime | None = _moment(nullable=True)
    cancelled_at: datetime | None = _moment(nullable=True)


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
        _index_where(
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
        _index_where(
            "ix_invocation_backlog",
            "finished_at IS NULL",
            "deployment_id",
            "status",
            "created_at",
            "tokens",
        ),
        _index_where("ix_invocation_delayed", DELAYED, "available_at"),
        _index_where(
            "ix_invocation_expiry", "status = 'queued' AND expires_at IS NOT NULL", "expires_at"
        ),
        _index_where("ix_invocation_lease", "lease_owner IS NOT NULL", "lease_owner"),
        _index_where("ix_invocation_list", "batch_id IS NULL", "project_id", "id"),
        _index_where("ix_invocation_batch_open", "finished_at IS NULL", "batch_id", "status"),
        # Whatever a batch says of its lines is read from here, never from the rows.
        _index_where(
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
        _index_where(
            "ix_invocation_forget",
            "finished_at IS NOT NULL AND forgotten_at IS NULL",
            "finished_at",
        ),
        _index_where(
            "ix_invocation_forget_early",
            "forget_at IS NOT NULL AND forgotten_at IS NULL",
            "forget_at",
        ),
        _index_where(
            "ix_invocation_unstamped",
            "result_ttl_s IS NOT NULL AND forget_at IS NULL",
            "finished_at",
        ),
        _index_where("ix_invocation_forgotten", "forgotten_at IS NOT NULL", "finished_at"),
    )

    id: str = Field(primary_key=True)
    project_id: str = _owner("project")
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
    error: dict[str, Any] | None = _json(nullable=True)
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
    created_at: datetime = _moment()
    available_at: datetime = _moment()
    """Not claimed before this time: the back-off between attempts."""
    delayed: bool = Field(default=False, description="`available_at` has not come yet")
    due_at: datetime = Field(default=FAR, sa_type=UtcDateTime, nullable=False)
    """Not claimed after this time, and claimed the earlier the nearer it is: an invocation's own
    deadline, or that of a line's batch."""
    affinity: str = Field(default="", description="equal for requests that should run together")
    tokens: int = Field(default=0, description="prompt and expected output, estimated")
    started_at: datetime | None = _moment(nullable=True)
    finished_at: datetime | None = _moment(nullable=True)
    expires_at: datetime | None = _moment(nullable=True)
    deadline_at: datetime | None = _moment(nullable=True)
    """Its answer is of no use after this time."""
    claimed_at: datetime | None = _moment(nullable=True)
    """When its newest run began; `started_at` is when its first one did."""
    outline: dict[str, Any] | None = _json(nullable=True)
    """`{"array", "items", "fields"}` of a body that is asked in pieces."""
    attempts: list[dict[str, Any]] | None = _json(nullable=True)
    """Runs that ended, the oldest first; `domain.attempts` makes it."""
    result_bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    input_uri: str | None = Field(default=None, description="where the body is, if not here")
    input_etag: str | None = Field(default=None, description="of the object when it was accepted")
    result_ttl_s: float | None = Field(
        default=None, description="kept so long after its end; the platform's time when null"
    )
    forget_at: datetime | None = _moment(nullable=True)
    """When that is, of a finished row that has a `result_ttl_s`."""
    forgotten_at: datetime | None = _moment(nullable=True)
    """The body and the result were deleted; the row stays for a while."""


class EncryptionKey(SQLModel, table=True):
    """A key that something may be sealed under; without it this process does not start."""

    __tablename__ = "encryption_key"

    id: str = Field(primary_key=True)
    first_used_at: datetime = _moment()


class OfferRow(SQLModel, table=True):
    """An offer of the hardware catalogue that was asked for; others came with this version."""

    __tablename__ = "offer"

    id: str = Field(primary_key=True)
    content: dict[str, Any] = _json()
    """An `Offer`."""
    recorded_at: datetime = _moment()


class UsageRecord(SQLModel, table=True):
    """Tokens and requests of one key on one deployment in one hour."""

    __tablename__ = "usage_record"

    project_id: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    mode: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    hour: datetime = Field(sa_column=Column(UtcDateTime, primary_key=True))
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Webhook(SQLModel, table=True):
    """Where a project wants to be told, and of what."""

    __table_args__ = (
        _index_where("ix_webhook_living", "deleted_at IS NULL", "project_id", "enabled"),
    )

    id: str = Field(primary_key=True)
    project_id: str = Field(sa_column=Column(ForeignKey("project.id"), nullable=False))
    url: str
    events: list[str] = _json()
    description: str = ""
    enabled: bool = True
    disabled_reason: str | None = None
    secret: str = Field(description="sealed; `webhooks.secret` opens it")
    former_secret: str | None = None
    former_secret_until: datetime | None = _moment(nullable=True)
    failing_since: datetime | None = _moment(nullable=True)
    created_at: datetime = _moment()
    updated_at: datetime = _moment()
    deleted_at: datetime | None = _moment(nullable=True)


class WebhookDelivery(SQLModel, table=True):
    """The outbox: one event for one webhook, written with the change that it tells of."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        _index_where(
            "ix_webhook_delivery_due", "finished_at IS NULL", "webhook_id", "status", "due_at"
        ),
        _index_where("ix_webhook_delivery_lease", "lease_owner IS NOT NULL", "lease_owner"),
        Index("ix_webhook_delivery_list", "webhook_id", "id"),
        Index("ix_webhook_delivery_finished", "finished_at"),
    )

    id: str = Field(primary_key=True)
    webhook_id: str = Field(sa_column=Column(ForeignKey("webhook.id"), nullable=False))
    event_id: str = Field(description="the same for all tries, and for all webhooks of the event")
    type: str
    data: dict[str, Any] = _json()
    status: str
    number: int = Field(default=0, description="tries since it was made or replayed")
    tries: list[dict[str, Any]] = _json()
    lease_owner: str | None = None
    lease_epoch: int = 0
    created_at: datetime = _moment()
    due_at: datetime = _moment()
    finished_at: datetime | None = _moment(nullable=True)


class Leader(SQLModel, table=True):
    """One row: which of several control planes reconciles."""

    id: int = Field(primary_key=True)
    owner: str = ""
    epoch: int = Field(default=0, description="raised by each takeover")
    beat: int = Field(default=0, description="raised by the owner while it lives")
    published: int = Field(default=0, description="raised by each change of a publication")


class ControlPlane(SQLModel, table=True):
    """One of several control planes that runs, and what is asked of it."""

    __tablename__ = "control_plane"

    id: str = Field(primary_key=True)
    beat: int = 0
    place: dict[str, Any] = _json()
    """What must agree among them."""
    demand: dict[str, Any] = _json()
    """By deployment id; and the requests that each replica has from here."""
    seen: int = Field(default=0, description="the leader's `published` that it goes by")


class Publication(SQLModel, table=True):
    """How requests for one deployment are to be routed, as the leader says."""

    deployment_id: str = Field(primary_key=True)
    content: dict[str, Any] = _json()


class SharedCounter(SQLModel, table=True):
    """Raised in each transaction that changes what other control planes keep in memory."""

    __tablename__ = "shared_counter"

    name: str = Field(primary_key=True)
    value: int = 0
