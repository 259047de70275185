"""Rows as lines of JSON, the same from either engine and into either.

Tables are read from the database itself and not from this version's declarations, so that an
archive of an older schema goes into tables of that schema, which are upgraded afterwards.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    select,
)

OF_PROCESSES = frozenset({"alembic_version"})
"""What running control planes say to each other; of no use to the next ones."""
OBJECT_COLUMNS = {"invocation": ("request_key", "result_key"), "file": ("object_key",)}
"""The columns that name objects, by table."""
GROUP = 500
"""Rows that are read or inserted at once."""


def tables(connection: Connection) -> list[Table]:
    """Those of the database, parents before their children."""
    found = MetaData()
    found.reflect(connection)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return [table for table in found.sorted_tables if table.name not in OF_PROCESSES]


def dump(
    connection: Connection, table: Table, names_object: Callable[[str], None]
) -> Iterator[bytes]:
    """Each row as a line; `names_object` is told the key of each object that a row names."""
    query = select(table).execution_options(yield_per=GROUP)
    for row in connection.execute(query).mappings():
        for name in OBJECT_COLUMNS.get(table.name, ()):
            if key := row[name]:
                names_object(key)
        values = {column.name: _said(column, row[column.name]) for column in table.columns}
        yield json.dumps(values, separators=(",", ":")).encode() + b"\n"


def load(connection: Connection, table: Table, lines: Iterable[bytes]) -> int:
    """Insert the rows that `dump` wrote; returns how many."""
    coming, number = iter(lines), 0
    zone = connection.dialect.name != "sqlite"
    while group := list(islice(coming, GROUP)):
        rows = [_read(table, json.loads(line), zone=zone) for line in group]
        connection.execute(insert(table), rows)
        number += len(rows)
    if zone:
        _count_on(connection, table)
    return number


def count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _said(column: Column[Any], value: Any) -> Any:
    if isinstance(value, datetime):
        return _utc(value).isoformat()
    if isinstance(column.type, LargeBinary) and value is not None:
        return base64.b64encode(value).decode()
    return value


def _read(table: Table, said: dict[str, Any], *, zone: bool) -> dict[str, Any]:
    return {column.name: _value(column, said[column.name], zone=zone) for column in table.columns}


def _value(column: Column[Any], said: Any, *, zone: bool) -> Any:
    """`zone`: whether the engine keeps the zone of a moment; else it is UTC by agreement."""
    if said is None:
        return None
    if isinstance(column.type, DateTime):
        moment = _utc(datetime.fromisoformat(said))
        return moment if zone else moment.replace(tzinfo=None)
    if isinstance(column.type, LargeBinary):
        return base64.b64decode(said)
    return said


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _count_on(connection: Connection, table: Table) -> None:
    """Let numbers that the engine gives go on after the highest that was inserted."""
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer):
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            highest = select(func.max(column)).scalar_subquery()
            connection.execute(select(func.setval(sequence, highest)))
