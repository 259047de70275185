"""Units of work on a PostgreSQL server that several control planes share.

Units that write are SERIALIZABLE: they read before they write, and were written for one writer.
The server refuses one of two that do not go together, and that one runs again. A `Guarded` unit is
READ COMMITTED. Reads are REPEATABLE READ: one view.

A connection that is lost before COMMIT was sent has committed nothing, so the unit runs again. One
that is lost during COMMIT leaves the question open, so the server is asked: a unit that wrote notes
its transaction id before it commits, and `pg_xact_status` tells what became of that. Only a server
that does not come back within PATIENCE_S leaves the outcome unknown; it is raised as such.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from tidegate_controlplane.errors import BadRequest, OutcomeUnknown, StartError, Unavailable
from tidegate_controlplane.settled import settled
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.faults import said_plainly

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)
T = TypeVar("T")

OLDEST_SERVER = 14
CONNECTIONS = 8
"""Units at once, in as many threads and connections."""
PATIENCE_S = 20.0
"""Until a server that is away, or a unit that always loses to others, is given up."""
_OPTIONS = {
    "synchronous_commit": "on",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
}
_CONFLICTS = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected: nothing was committed."""
_AWAY = ("08", "57P")
"""Classes of a lost connection and of a server that stops or starts."""


class PostgresDatabase:
    """The database that a `postgresql://…` URL names."""

    shared = True

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        """Raises StartError when the driver is missing or the URL cannot be read."""
        self.url = url
        self._patience_s = patience_s
        self._writer = create_engine(
            "postgresql+psycopg://",
            creator=_connector(url),
            pool_size=CONNECTIONS,
            max_overflow=2,  # the one that asks what became of a commit does not wait for others
        )
        self._serial = self._writer.execution_options(isolation_level="SERIALIZABLE")
        self._guarded = self._writer.execution_options(isolation_level="READ COMMITTED")
        self._reader = self._writer.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store")

    @property
    def writer(self) -> Engine:
        return self._writer

    def check(self) -> None:
        """Raise StartError when the server cannot be reached or is too old. Blocks."""
        try:
            with self._writer.connect() as connection:
                version = connection.execute(text("SHOW server_version_num")).scalar_one()
                fsync = connection.execute(text("SHOW fsync")).scalar_one()
        except DBAPIError as error:
            raise StartError(f"database: {shown(self.url)} cannot be used: {error.orig}") from error
        if int(version) // 10_000 < OLDEST_SERVER:
            raise StartError(
                f"database: {shown(self.url)} runs PostgreSQL {int(version) // 10_000}; "
                f"version {OLDEST_SERVER} or newer is needed"
            )
        if fsync != "on":
            log.warning("the database server runs with fsync=%s: a power loss loses work", fsync)

    def snapshot(self) -> Connection:
        return self._reader.connect()

    async def write(self, unit: Callable[[Session], T]) -> T:
        engine = self._guarded if isinstance(unit, Guarded) else self._serial
        return await self._run(engine, unit)

    async def read(self, unit: Callable[[Session], T]) -> T:
        return await self._run(self._reader, unit)

    def close(self) -> None:
        self._threads.shutdown()
        self._writer.dispose()

    async def _run(self, engine: Engine, unit: Callable[[Session], T]) -> T:
        loop = asyncio.get_running_loop()
        return await settled(loop.run_in_executor(self._threads, self._persist, engine, unit))

    def _persist(self, engine: Engine, unit: Callable[[Session], T]) -> T:
        """Run the unit until it commits, or fails for a reason of its own."""
        until = time.monotonic() + self._patience_s
        pause_s = 0.005
        while True:
            try:
                with said_plainly():
                    return self._transaction(engine, unit)
            except DBAPIError as error:
                if "NUL (0x00)" in str(error.orig):
                    raise BadRequest(
                        "a text holds the character U+0000, which cannot be stored; remove it"
                    ) from error
                if not (is_conflict(error) or is_away(error)):
                    raise
                if time.monotonic() >= until:
                    raise Unavailable(
                        f"the database could not be used: {error.orig}",
                        code="database_unavailable",
                        retry_after_s=1.0,
                    ) from error
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(0.5, 2 * pause_s)

    def _transaction(self, engine: Engine, unit: Callable[[Session], T]) -> T:
        """Once; a DBAPIError of `is_conflict` or `is_away` means that nothing was committed."""
        with Session(engine, expire_on_commit=False) as session, ExitStack() as unless_done:
            unless_done.callback(session.rollback)
            found = unit(session)
            session.flush()
            wrote: str | None = session.connection().execute(_ID_IF_WROTE).scalar_one()
            try:
                session.commit()
            except DBAPIError as error:
                if wrote is None or not is_away(error) or not self._has_committed(wrote):
                    raise
            unless_done.pop_all()
        return found

    def _has_committed(self, transaction_id: str) -> bool:
        """What became of a transaction whose COMMIT got no answer. Raises OutcomeUnknown."""
        until = time.monotonic() + self._patience_s
        while time.monotonic() < until:
            try:
                with self._guarded.connect() as connection:
                    status = connection.execute(_STATUS, {"id": transaction_id}).scalar_one()
            except DBAPIError as error:
                if not is_away(error):
                    raise
                status = None
            if status in ("committed", "aborted"):
                return bool(status == "committed")
            time.sleep(0.05)
        raise OutcomeUnknown(
            "the database went away while it committed, and did not come back to say whether it "
            "had; look again, or send the request again with the same Idempotency-Key"
        )


_ID_IF_WROTE = text("SELECT pg_current_xact_id_if_assigned()::text")
_STATUS = text("SELECT pg_xact_status(CAST(:id AS xid8))")


def is_conflict(error: DBAPIError) -> bool:
    """Whether the server refused a unit because of what others did meanwhile."""
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS


def is_away(error: DBAPIError) -> bool:
    """Whether the connection was lost, or none could be made."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return bool(state.startswith(_AWAY))
    return type(error.orig).__name__ == "OperationalError"  # libpq's own, which have no state


def shown(url: str) -> str:
    """The URL as it may be printed: without passwords."""
    parts = urlsplit(url)
    place = parts.netloc
    if "@" in place:
        user, _, host = place.rpartition("@")
        place = f"{user.partition(':')[0]}@{host}"
    query = [(key, value) for key, value in parse_qsl(parts.query) if "password" not in key]
    rest = f"?{urlencode(query, safe='/')}" if query else ""
    return f"{parts.scheme}://{place}{parts.path}{rest}"


def _connector(url: str) -> Callable[[], psycopg.Connection[Any]]:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise StartError(
            f"database: {shown(url)} needs psycopg; install it with: "
            "pip install 'tidegate[postgres]'"
        ) from error
    try:
        asked = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise StartError(f"database: {shown(url)} is no PostgreSQL URL: {error}") from error
    ours = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
    options = f"{asked.get('options', '')} {ours}".strip()
    timeout_s = int(asked.get("connect_timeout") or 10)
    name = asked.get("application_name", "tidegate")

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(
            url, options=options, connect_timeout=timeout_s, application_name=name
        )

    return connect
