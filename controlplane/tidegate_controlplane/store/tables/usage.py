"""What was used, by the hour."""

from datetime import datetime

from sqlalchemy import Column
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import UtcDateTime


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
