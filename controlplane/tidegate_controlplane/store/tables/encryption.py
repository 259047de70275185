"""The keys that rows and objects are sealed under."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import moment


class EncryptionKey(SQLModel, table=True):
    """A key that something may be sealed under; without it this process does not start."""

    __tablename__ = "encryption_key"

    id: str = Field(primary_key=True)
    first_used_at: datetime = moment()
