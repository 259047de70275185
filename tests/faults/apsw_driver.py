"""A DB-API module over apsw, as much of it as SQLAlchemy's SQLite dialect asks for.

apsw can put a file system of our own beneath SQLite, which the module in use cannot; so a test that
wants to see, or lose, what SQLite writes runs the platform's own SQL through this one.
"""

from __future__ import annotations

import datetime
from typing import Any

import apsw

sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))
paramstyle = "qmark"
apilevel = "2.0"
threadsafety = 1
PARSE_DECLTYPES, PARSE_COLNAMES = 1, 2
Error = apsw.Error
DatabaseError = OperationalError = ProgrammingError = InternalError = NotSupportedError = Error
DataError = InterfaceError = Error
IntegrityError = apsw.ConstraintError
Binary = memoryview
VFS: str | None = None
"""The file system that connections use from now on; None is SQLite's own."""


def connect(path: str, timeout: float = 5.0, **_: Any) -> Connection:
    return Connection(path, timeout)


class Connection:
    isolation_level: str | None = None

    def __init__(self, path: str, timeout: float) -> None:
        self._apsw = apsw.Connection(path, vfs=VFS)
        self._apsw.set_busy_timeout(int(timeout * 1000))

    def cursor(self) -> Cursor:
        return Cursor(self._apsw)

    def execute(self, sql: str, parameters: Any = ()) -> Cursor:
        return self.cursor().execute(sql, parameters)

    def create_function(
        self, name: str, arguments: int, function: Any, *, deterministic: bool = False
    ) -> None:
        self._apsw.create_scalar_function(name, function, arguments, deterministic=deterministic)

    def commit(self) -> None:
        if self._apsw.in_transaction:
            self._apsw.execute("COMMIT")

    def rollback(self) -> None:
        if self._apsw.in_transaction:
            self._apsw.execute("ROLLBACK")

    def close(self) -> None:
        self._apsw.close()


class Cursor:
    arraysize = 1

    def __init__(self, connection: apsw.Connection) -> None:
        self._apsw = connection
        self._rows: list[tuple[Any, ...]] = []
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1
        self.lastrowid = 0

    def execute(self, sql: str, parameters: Any = ()) -> Cursor:
        before = self._apsw.total_changes()
        self.description = None
        cursor = self._apsw.cursor()
        cursor.exec_trace = self._describe  # later, a SELECT without rows has no description
        cursor.execute(sql, tuple(_adapted(value) for value in parameters))
        self._rows = list(cursor)
        self.rowcount = self._apsw.total_changes() - before
        self.lastrowid = self._apsw.last_insert_rowid()
        return self

    def _describe(self, cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        columns = cursor.get_description()
        self.description = tuple((name, *[None] * 6) for name, _ in columns) or None
        return True

    def executemany(self, sql: str, many: Any) -> Cursor:
        changed = 0
        for parameters in many:
            changed += self.execute(sql, parameters).rowcount
        self.rowcount = changed
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        size = size or self.arraysize
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[tuple[Any, ...]]:
        taken, self._rows = self._rows, []
        return taken

    def close(self) -> None:
        self._rows = []


def _adapted(value: Any) -> Any:
    return str(value) if isinstance(value, datetime.datetime | datetime.date) else value
