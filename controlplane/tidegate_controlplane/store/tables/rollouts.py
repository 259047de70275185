"""Rollouts: one revision that takes over from another."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value, moment, owner


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
    project_id: str = owner("project")
    deployment_id: str = owner("deployment")
    from_revision_id: str = owner("revision")
    to_revision_id: str = owner("revision")
    options: dict[str, Any] = json_value()
    """The declaration's `rollout` when it began: what is changed later is for the next one."""
    phase: str
    step: int = 0
    weight: float = Field(default=0.0, description="percent of the requests on the new revision")
    requested: str | None = Field(default=None, description="promote or abort, once asked for")
    reason: str
    message: str
    comparison: dict[str, Any] | None = json_value(nullable=True)
    version: int = 1
    created_at: datetime = moment()
    updated_at: datetime = moment()
    finished_at: datetime | None = moment(nullable=True)
