"""A pass over everything that is sealed: count it by key, and put it under the newest one.

Nothing is remembered but what is stored: whatever is under the newest key already is passed over,
so a pass that is killed is simply begun again. It runs beside everything else, one row or object at
a time, and replaces a row's body only if it is still the one that was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, SQLModel, select

from tidegate.protocol.resources import EncryptionView, KeyUse
from tidegate_controlplane.encryption.envelopes import key_id_of
from tidegate_controlplane.encryption.sealed_store import SealedStore
from tidegate_controlplane.errors import Conflict
from tidegate_controlplane.objects.base import ObjectNotFound, ObjectStoreError
from tidegate_controlplane.store import encryption_keys
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.object_keys import request_key_of, result_key_of
from tidegate_controlplane.work.worker import Plane

log = logging.getLogger(__name__)

PAGE_ROWS = 50
"""Read at once: bodies in rows are small, but not nothing."""
MAX_ERRORS = 10


@dataclass(frozen=True)
class SealedColumn:
    """A column of sealed bytes, and the name that a row's bytes are sealed under."""

    table: type[SQLModel]
    column: str
    name_of: Callable[[Any], str]


SEALED_COLUMNS = (
    SealedColumn(Invocation, "request", request_key_of),
    SealedColumn(Invocation, "result", result_key_of),
)


@dataclass
class Pass:
    """One time through. `rewrap`: what is not under the newest key is put there."""

    rewrap: bool
    started_at: datetime
    finished_at: datetime | None = None
    rewrapped: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)


class Rotation:
    """The service behind `/api/v1/encryption`."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._last: Pass | None = None
        self._task: asyncio.Task[None] | None = None

    def view(self) -> EncryptionView:
        """The keys, and what the present pass, or the last one, has found."""
        keyring, last = self._plane.envelopes.keyring, self._last
        about = EncryptionView(
            keys=keyring.key_ids if keyring else [],
            newest=keyring.newest if keyring else None,
            required=self._plane.settings.encryption.required,
        )
        if last is None:
            return about
        uses = [
            KeyUse(key=key or None, objects=last.objects[key], rows=last.rows[key])
            for key in sorted(last.objects.keys() | last.rows.keys())
        ]
        return about.model_copy(
            update={
                "running": last.finished_at is None,
                "started_at": last.started_at,
                "finished_at": last.finished_at,
                "rewrapped": last.rewrapped,
                "failed": last.failed,
                "errors": list(last.errors),
                "uses": uses,
            }
        )

    def start(self, *, rewrap: bool) -> EncryptionView:
        """Begin a pass. Raises Conflict when one runs, or when nothing is sealed here."""
        if self._plane.envelopes.keyring is None:
            raise Conflict(
                "encryption is off; start the platform with --encryption-key", code="not_encrypted"
            )
        if self._task is not None and not self._task.done():
            raise Conflict("a pass is under way; wait for its end", code="pass_running")
        self._last = Pass(rewrap, self._plane.clock.now())
        self._task = asyncio.create_task(self._run(self._last), name="encryption pass")
        return self.view()

    async def stop(self) -> None:
        """Interrupt the pass; the next one goes on where it was."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, going: Pass) -> None:
        try:
            for sealed in SEALED_COLUMNS:
                await self._rows(going, sealed)
            await self._objects(going)
            await self._forget_unused(going)
        except Exception as error:
            log.exception("a pass over what is sealed was broken off")
            _failed(going, f"the pass was broken off: {error}")
        finally:
            going.finished_at = self._plane.clock.now()

    async def _forget_unused(self, going: Pass) -> None:
        """A key that nothing is sealed under need not be given at the next start."""
        if not going.failed:
            used = {self._newest, *going.objects, *going.rows}
            await self._plane.db.write(partial(encryption_keys.keep_only, key_ids=used))

    @property
    def _newest(self) -> str:
        keyring = self._plane.envelopes.keyring
        assert keyring is not None
        return keyring.newest

    # --- objects ---

    async def _objects(self, going: Pass) -> None:
        objects = self._plane.objects
        assert isinstance(objects, SealedStore)
        async with aclosing(objects.list()) as found:
            async for listed in found:
                try:
                    key_id = await self._object(going, objects, listed.key)
                except ObjectNotFound:
                    continue  # deleted meanwhile
                except ObjectStoreError as error:
                    _failed(going, str(error))
                else:
                    going.objects[key_id or ""] += 1

    async def _object(self, going: Pass, objects: SealedStore, key: str) -> str | None:
        key_id = await objects.key_id(key)
        if not going.rewrap or key_id == self._newest:
            return key_id
        await objects.rewrap(key)
        going.rewrapped += 1
        return self._newest

    # --- rows ---

    async def _rows(self, going: Pass, sealed: SealedColumn) -> None:
        async with aclosing(self._each(sealed)) as rows:
            async for row in rows:
                try:
                    key_id = await self._row(going, sealed, row)
                except ObjectStoreError as error:
                    _failed(going, str(error))
                else:
                    going.rows[key_id or ""] += 1

    async def _row(self, going: Pass, sealed: SealedColumn, row: Any) -> str | None:
        name, stored = sealed.name_of(row), getattr(row, sealed.column)
        key_id = key_id_of(stored, name)
        if not going.rewrap or key_id == self._newest:
            return key_id
        renewed = await self._plane.envelopes.rewrapped(name, stored)
        await self._plane.db.write(partial(_replace, sealed=sealed, row=row, renewed=renewed))
        going.rewrapped += 1
        return self._newest

    async def _each(self, sealed: SealedColumn) -> AsyncGenerator[Any]:
        """Every row that has the column, by id."""
        after = ""
        while rows := await self._plane.db.read(partial(_page, sealed=sealed, after=after)):
            for row in rows:
                yield row
            after = rows[-1].id


def _page(session: Session, sealed: SealedColumn, after: str) -> list[Any]:
    table: Any = sealed.table
    query = select(table).where(table.id > after, getattr(table, sealed.column).is_not(None))
    return list(session.exec(query.order_by(table.id).limit(PAGE_ROWS)))


def _replace(session: Session, sealed: SealedColumn, row: Any, renewed: bytes) -> None:
    """Unless somebody changed or cleared it meanwhile."""
    table: Any = sealed.table
    column = getattr(table, sealed.column)
    session.execute(
        update(table)
        .where(table.id == row.id, column == getattr(row, sealed.column))
        .values({sealed.column: renewed})
        .execution_options(synchronize_session=False)
    )


def _failed(going: Pass, why: str) -> None:
    going.failed += 1
    if len(going.errors) < MAX_ERRORS:
        going.errors.append(why)
