"""Models, and what their files were."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value, moment, owner


class Model(SQLModel, table=True):
    __table_args__ = (UniqueConstraint("project_id", "source", "task"),)

    id: str = Field(primary_key=True)
    project_id: str = owner("project")
    source: str
    task: str
    created_at: datetime = moment()


class ModelVersion(SQLModel, table=True):
    """Immutable: what the files of a source were when a plan read them."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("model_id", "digest"),)

    id: str = Field(primary_key=True)
    model_id: str = owner("model")
    digest: str
    revision: str | None = None
    facts: dict[str, Any] = json_value()
    created_at: datetime = moment()
