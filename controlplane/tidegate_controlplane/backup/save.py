"""Making an archive, while the platform runs or not.

Rows are read from one snapshot of the database. The objects that they name are copied afterwards:
an object is written before the row that names it and is never changed, so each is there, unless it
was deleted meanwhile. Those are counted, and their rows answer as for any deleted object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import IO

from sqlalchemy import Connection

from tidegate.version import VERSION
from tidegate_controlplane.backup.archive import ArchiveWriter
from tidegate_controlplane.backup.contents import (
    FORMAT,
    OBJECT_LIST,
    PEPPER,
    Objects,
    Summary,
    object_name,
    rows_name,
)
from tidegate_controlplane.backup.rows import dump, tables
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import BackupError
from tidegate_controlplane.objects.base import ObjectNotFound, ObjectStore
from tidegate_controlplane.objects.open import open_objects
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.migrate import schema_revision
from tidegate_controlplane.store.open import open_database


async def save(settings: Settings, target: Path, clock: Clock, *, with_s3: bool) -> Summary:
    """Write the archive `target`; objects in S3 are listed only, unless `with_s3`.

    Raises BackupError, and ObjectStoreError.
    """
    check_is_there(settings)
    included = settings.objects is None or with_s3
    with closing(ArchiveWriter(target)) as archive, archive.spool() as keys:
        taken_at = clock.now()
        database = open_database(settings.database, settings.database_path)
        try:
            with database.snapshot() as connection:
                revision, rows = _save_rows(connection, archive, keys)
        finally:
            database.close()
        archive.add_bytes(PEPPER, settings.pepper_path.read_bytes())
        archive.add(OBJECT_LIST, keys)
        summary = Summary(
            format=FORMAT,
            tidegate=VERSION,
            schema_revision=revision,
            taken_at=taken_at,
            rows=rows,
            objects=await _save_objects(settings, archive, keys, included=included),
        )
        archive.finish(summary)
    return summary


def check_is_there(settings: Settings) -> None:
    """Raise BackupError when there is no platform, or only a half restored one."""
    if settings.restoring_path.exists():
        raise BackupError(f"a restore into {settings.data_dir} has not ended; finish it first")
    file = [settings.database_path] if settings.database is None else []
    for path in (*file, settings.pepper_path):
        if not path.exists():
            raise BackupError(
                f"there is no {path.name} in {settings.data_dir}: no platform has run there; "
                "name its directory with --data"
            )


def _save_rows(
    connection: Connection, archive: ArchiveWriter, keys: IO[bytes]
) -> tuple[str, dict[str, int]]:
    revision = schema_revision(connection)
    if revision is None:
        raise BackupError("the database has no tables yet; start the platform once")

    def names_object(key: str) -> None:
        keys.write(key.encode() + b"\n")

    return revision, {
        table.name: archive.add_lines(rows_name(table.name), dump(connection, table, names_object))
        for table in tables(connection)
    }


async def _save_objects(
    settings: Settings, archive: ArchiveWriter, keys: IO[bytes], *, included: bool
) -> Objects:
    named = gone = 0
    store = open_objects(settings) if included else None
    for key in _lines(keys):
        named += 1
        if store and not await _save_object(store, key, archive):
            gone += 1
    place = settings.objects or str(settings.objects_dir)
    return Objects(place=place, included=included, named=named, gone=gone)


async def _save_object(store: ObjectStore, key: str, archive: ArchiveWriter) -> bool:
    """Whether it was there."""
    with archive.spool() as spool:
        try:
            async with aclosing(store.get(key)) as pieces:
                async for piece in pieces:
                    spool.write(piece)
        except ObjectNotFound:
            return False
        archive.add(object_name(key), spool)
    return True


def _lines(keys: IO[bytes]) -> Iterator[str]:
    keys.seek(0)
    for line in keys:
        yield line.decode().rstrip("\n")
