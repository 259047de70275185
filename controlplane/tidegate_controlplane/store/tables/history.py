"""What happened to deployments, and what was decided for them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, ForeignKey, Index
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value, moment, owner


class Event(SQLModel, table=True):
    """Append-only: what happened to an object, in one sentence."""

    __table_args__ = (Index("ix_event_deployment_seq", "deployment_id", "seq"),)

    seq: int | None = Field(default=None, primary_key=True)
    project_id: str = owner("project")
    deployment_id: str | None = None
    object: str
    severity: str
    reason: str
    message: str
    time: datetime = moment()


class Decision(SQLModel, table=True):
    """Append-only, and bounded for each deployment: what the autoscaler decided, and from what."""

    __table_args__ = (Index("ix_decision_deployment_seq", "deployment_id", "seq"),)

    seq: int | None = Field(default=None, primary_key=True)
    deployment_id: str = Field(sa_column=Column(ForeignKey("deployment.id"), nullable=False))
    desired: int
    called_for: int
    term: str
    sentence: str
    inputs: dict[str, Any] = json_value()
    time: datetime = moment()
