"""Who asks: projects and their keys."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import moment, owner

DEFAULT_PROJECT = "prj_default"


class Project(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = moment()


class ApiKey(SQLModel, table=True):
    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    project_id: str = owner("project")
    name: str
    role: str
    digest: str = Field(description="HMAC-SHA-256 of the secret, hex")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    created_at: datetime = moment()
    revoked_at: datetime | None = moment(nullable=True)
