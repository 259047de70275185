"""Making a platform from an archive, in an empty place.

A file in the data directory says that a restore has begun, and the platform does not start beside
it. Objects and secrets come first and may be written twice; the rows come last, in one transaction.
So a restore that is killed is begun again with the same command, and nothing is ever half there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Engine, inspect
from sqlmodel import Session

from tidegate_controlplane.access.pepper import write_pepper
from tidegate_controlplane.backup.archive import PIECE_BYTES, members, verify
from tidegate_controlplane.backup.contents import OBJECT_LIST, PEPPER, Summary, key_of, table_of
from tidegate_controlplane.backup.rows import count, load, tables
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.data_dir import owned, write_private
from tidegate_controlplane.durable import sync
from tidegate_controlplane.errors import BackupError
from tidegate_controlplane.objects.base import ObjectStore
from tidegate_controlplane.objects.open import open_objects
from tidegate_controlplane.reconcile.incidents import close_former
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store import leases
from tidegate_controlplane.store.migrate import changing_schema, is_known, schema_revision, upgrade
from tidegate_controlplane.store.open import open_database

LOOKED_UP_AT_ONCE = 32


async def restore(settings: Settings, source: Path, clock: Clock) -> Summary:
    """Fill the empty place that `settings` name from the archive `source`.

    What ran when the archive was made is queued, and its replicas have ended. Raises BackupError,
    StartError when the place is in use, and ObjectStoreError.
    """
    summary = verify(source)
    if not is_known(summary.schema_revision):
        raise BackupError(
            f"{source} has schema {summary.schema_revision!r}, which this version does not know; "
            f"use Tidegate {summary.tidegate} or a newer one"
        )
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned(settings.lock_path):
        _check_paths(settings, summary)
        database = open_database(settings.database, settings.database_path)
        try:
            _begin(settings, summary, database.writer)
            await _restore_objects(open_objects(settings), source, summary)
            _restore_pepper(settings.pepper_path, source)
            _restore_rows(database.writer, source, summary, clock.now())
        finally:
            database.close()
        settings.restoring_path.unlink()
        sync(settings.data_dir)
    return summary


def _check_paths(settings: Settings, summary: Summary) -> None:
    """Raise BackupError unless the directory is empty, or this archive's restore has begun."""
    marker = settings.restoring_path
    if marker.exists():
        if json.loads(marker.read_text()) != summary.model_dump(mode="json"):
            raise BackupError(
                f"a restore of another archive into {settings.data_dir} has not ended; finish "
                "that one, or empty the directory"
            )
        return
    for path in (settings.pepper_path, settings.objects_dir):
        if path.exists():
            raise BackupError(
                f"{path} exists, and a platform is restored into an empty place only; "
                "name another directory with --data"
            )


def _begin(settings: Settings, summary: Summary, engine: Engine) -> None:
    """Say that the restore has begun. Raises BackupError when the database is not empty."""
    if settings.restoring_path.exists():
        return
    if inspect(engine).get_table_names():
        raise BackupError(
            "the database has tables already, and a platform is restored into an empty one only; "
            "make a new database and name that"
        )
    write_private(settings.restoring_path, summary.model_dump(mode="json"))
    sync(settings.data_dir)


async def _restore_objects(store: ObjectStore, source: Path, summary: Summary) -> None:
    for name, content in members(source):
        if key := key_of(name):
            await store.put(key, _pieces(content))
        elif name == OBJECT_LIST and not summary.objects.included:
            await _check_listed(store, content, summary)


async def _check_listed(store: ObjectStore, listed: IO[bytes], summary: Summary) -> None:
    """Raise BackupError unless every object that rows name is in the store."""
    keys = (line.decode().rstrip("\n") for line in listed)
    while group := list(islice(keys, LOOKED_UP_AT_ONCE)):
        there = await asyncio.gather(*(store.exists(key) for key in group))
        for key, is_there in zip(group, there, strict=True):
            if not is_there:
                raise BackupError(
                    f"the archive holds no objects, they stayed in {summary.objects.place}; "
                    f"{key!r} is not where this restore looks; name their place with --objects"
                )


def _restore_pepper(path: Path, source: Path) -> None:
    for name, content in members(source):
        if name == PEPPER:
            with suppress(FileExistsError):  # written by this restore, before it was killed
                write_pepper(path, content.read())


def _restore_rows(engine: Engine, source: Path, summary: Summary, now: datetime) -> None:
    """In one transaction: as the archive has them, then as this version and a new start want."""
    with changing_schema(engine) as connection:
        if schema_revision(connection) is not None:
            _check_restored(connection, summary)
            return
        upgrade(connection, summary.schema_revision)
        by_name = {table.name: table for table in tables(connection)}
        for name, content in members(source):
            if table := table_of(name):
                load(connection, by_name[table], content)
        upgrade(connection)
        with Session(connection) as session:
            _settle(session, now)
            session.flush()


def _check_restored(connection: Connection, summary: Summary) -> None:
    """Raise BackupError unless the rows are there: the restore was killed after its last commit."""
    found = {table.name: count(connection, table) for table in tables(connection)}
    if any(found.get(table, 0) < number for table, number in summary.rows.items()):
        raise BackupError(
            "someone else made tables in the database since this restore began; "
            "make a new database and an empty data directory, and begin anew"
        )


def _settle(session: Session, now: datetime) -> None:
    """No process of the former platform is known here: its work is queued, its replicas ended."""
    for held in leases.leased(session):
        leases.requeue(session, held.lease, now, available_at=now, counted=False)
    close_former(session, now)


def _pieces(content: IO[bytes]) -> Iterable[bytes]:
    def read() -> Iterator[bytes]:
        while piece := content.read(PIECE_BYTES):
            yield piece

    return read()
