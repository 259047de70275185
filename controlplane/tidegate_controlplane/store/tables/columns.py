"""Kinds of columns and indexes that the tables share."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Dialect, ForeignKey, Index, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field


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


def moment(nullable: bool = False, index: bool = False) -> Any:
    """A time; without a default unless it is nullable."""
    return Field(
        default=None if nullable else ...,
        sa_type=UtcDateTime,
        nullable=nullable,
        index=index,
    )


def json_value(nullable: bool = False) -> Any:
    """A value as JSON; None is the database's null."""
    return Field(sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def owner(table: str) -> Any:
    """The id of the row in `table` that this one belongs to."""
    return Field(sa_column=Column(ForeignKey(f"{table}.id"), nullable=False, index=True))


def index_where(name: str, where: str, *columns: str) -> Index:
    """An index of some rows: of unfinished work, it stays small however much is finished.

    A query uses it when it says `where` in so many words, without parameters.
    """
    condition = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)
