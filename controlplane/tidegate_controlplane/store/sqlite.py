"""Units of work on a SQLite file: one writer, which commits in groups, and several readers.

As DESIGN §5 wants it: write-ahead log, `synchronous=FULL`, `BEGIN IMMEDIATE` for writers (so two
can never deadlock on an upgrade), and a library new enough not to corrupt a log under concurrent
checkpoints (fixed in 3.51.3).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool
from sqlmodel import Session

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.settled import settled
from tidegate_controlplane.store.faults import said_plainly
from tidegate_controlplane.store.group_commit import GroupWriter

T = TypeVar("T")
OLDEST_SQLITE = (3, 51, 3)
READERS = 4


class SqliteDatabase:
    """A file that one process owns."""

    shared = False

    def __init__(self, path: Path) -> None:
        driver = sqlite_driver()
        self.url = f"sqlite:///{path}"
        self._writer = _engine(self.url, driver, begin="BEGIN IMMEDIATE", single=True)
        self._reader = _engine(self.url, driver, begin="BEGIN", single=False)
        self._group = GroupWriter(self._writer)
        self._read_threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    @property
    def writer(self) -> Engine:
        return self._writer

    def snapshot(self) -> Connection:
        return self._reader.connect()

    async def write(self, unit: Callable[[Session], T]) -> T:
        return await settled(asyncio.wrap_future(self._group.submit(unit)))

    async def read(self, unit: Callable[[Session], T]) -> T:
        loop = asyncio.get_running_loop()
        return await settled(loop.run_in_executor(self._read_threads, _view, self._reader, unit))

    def close(self) -> None:
        """Wait for what runs, then fold the log into the file."""
        self._group.close()
        self._read_threads.shutdown()
        self._reader.dispose()
        self._writer.dispose()


def sqlite_driver() -> ModuleType:
    """The DB-API module with a new enough SQLite; raise StartError when there is none."""
    drivers: list[ModuleType] = [sqlite3]
    try:
        import pysqlite3.dbapi2 as wheel
    except ImportError:
        pass
    else:
        drivers.insert(0, wheel)
    for driver in drivers:
        if driver.sqlite_version_info >= OLDEST_SQLITE:
            return driver
    newest = max(driver.sqlite_version for driver in drivers)
    raise StartError(
        f"SQLite {newest} can corrupt a database under concurrent checkpoints; "
        "install a newer one with: pip install pysqlite3"
    )


def _view(engine: Engine, unit: Callable[[Session], T]) -> T:
    with said_plainly(), Session(engine, expire_on_commit=False) as session, session.begin():
        return unit(session)


def _engine(url: str, driver: ModuleType, *, begin: str, single: bool) -> Engine:
    pool: dict[str, Any] = {"poolclass": StaticPool} if single else {"pool_size": READERS}
    engine = create_engine(
        url, module=driver, connect_args={"check_same_thread": False, "timeout": 30}, **pool
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if not single:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000")
