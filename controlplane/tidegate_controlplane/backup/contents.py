"""What is in an archive, and under which name.

manifest.jsonl        last: a Summary, then an Entry for each member before it, in their order
rows/TABLE.jsonl      one row in each line; parents come before their children
secrets/pepper        what the digests of API keys are made with
objects.txt           the key of every object that a row names
objects/KEY           its bytes, as they are stored: what is sealed stays sealed
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

FORMAT = 1
MANIFEST = "manifest.jsonl"
PEPPER = "secrets/pepper"
OBJECT_LIST = "objects.txt"
_ROWS, _OBJECTS = "rows/", "objects/"


class Objects(BaseModel):
    """What became of the bodies, answers and files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: str
    """The store they were in: `s3://bucket/prefix`, or a directory."""
    included: bool
    named: int
    """Keys in rows."""
    gone: int = 0
    """Of those, how many were no longer there when their turn came: deleted meanwhile."""


class Summary(BaseModel):
    """An archive in a few words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    tidegate: str
    """The version that wrote it."""
    schema_revision: str
    taken_at: datetime
    rows: dict[str, int]
    """By table, those tables first that others refer to."""
    objects: Objects


class Entry(BaseModel):
    """One member, as it must be found again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int
    sha256: str


def rows_name(table: str) -> str:
    return f"{_ROWS}{table}.jsonl"


def object_name(key: str) -> str:
    return _OBJECTS + key


def table_of(name: str) -> str | None:
    """The table whose rows the member `name` holds; None when it holds none."""
    return name[len(_ROWS) : -len(".jsonl")] if name.startswith(_ROWS) else None


def key_of(name: str) -> str | None:
    """The key of the object that the member `name` holds; None when it holds none."""
    return name[len(_OBJECTS) :] if name.startswith(_OBJECTS) else None
