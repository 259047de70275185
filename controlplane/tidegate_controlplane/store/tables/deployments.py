"""Deployments, their revisions and their replicas."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value, moment, owner


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
    project_id: str = owner("project")
    name: str
    mode: str
    spec: dict[str, Any] = json_value()
    plan: dict[str, Any] = json_value()
    """The resolved plan of `spec`, with scaling bounds; `domain.plan` makes it."""
    generation: int = 1
    observed_generation: int = 0
    revision_id: str = Field(description="the revision wanted")
    serving_revision_id: str | None = Field(default=None, description="the one that serves")
    phase: str
    message: str = ""
    conditions: list[dict[str, Any]] = json_value()
    desired_replicas: int = 0
    forgiven_at: datetime | None = moment(nullable=True)
    """Failures of replicas before this time no longer count: someone asked to try again."""
    held_at: list[str] = Field(
        default_factory=list, sa_column=Column(JSON(none_as_null=True), nullable=False)
    )
    """Provisioners that may hold something for it."""
    version: int = 1
    created_at: datetime = moment()
    updated_at: datetime = moment()
    deleted_at: datetime | None = moment(nullable=True)


class Revision(SQLModel, table=True):
    """Immutable: what its replicas are started with."""

    __table_args__ = (UniqueConstraint("deployment_id", "number"),)

    id: str = Field(primary_key=True)
    deployment_id: str = owner("deployment")
    number: int
    generation: int
    fingerprint: str = Field(description="equal fingerprints need no new replicas")
    model_version_id: str = owner("model_version")
    spec: dict[str, Any] = json_value()
    plan: dict[str, Any] = json_value()
    created_at: datetime = moment()


class Replica(SQLModel, table=True):
    id: str = Field(primary_key=True)
    deployment_id: str = owner("deployment")
    revision_id: str = owner("revision")
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
    created_at: datetime = moment()
    updated_at: datetime = moment()
    ready_at: datetime | None = moment(nullable=True)
    finished_at: datetime | None = moment(nullable=True)
