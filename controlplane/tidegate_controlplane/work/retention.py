"""Deleting what is kept no longer. Every step is bounded, and may be the second of its kind; the
writer is asked only when there is something to change.

A row is cleared before its objects are deleted: what a crash leaves between the two has no row any
more, and is found as an orphan. Two processes that do this disturb each other in nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from functools import partial

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.store import retention
from tidegate_controlplane.store.retention import Forgotten
from tidegate_controlplane.work.orphans import Orphans
from tidegate_controlplane.work.retention_metrics import RetentionMetrics
from tidegate_controlplane.work.worker import Plane

log = logging.getLogger(__name__)


class Retention:
    """What the loop behind it calls, again and again."""

    def __init__(self, plane: Plane) -> None:
        self._db = plane.db
        self._objects = plane.objects
        self._clock = plane.clock
        self._settings = plane.settings.retention
        self._retention_s = plane.settings.limits.result_retention_s
        self._metrics = RetentionMetrics(plane.registry)
        self._orphans = Orphans(plane.db, plane.objects, plane.clock, self._settings)
        self._swept_at = -self._settings.orphans_every_s

    async def tick(self) -> None:
        """Delete what is due now; also look for orphans, when it is time for that."""
        try:
            await _until_none_is_left(self._stamp)
            await _until_none_is_left(self._forget)
            await _until_none_is_left(self._expire_files)
            await _until_none_is_left(self._drop_rows)
        except Unavailable:
            log.exception("the database cannot be changed; freeing what needs no change of it")
            await self._free_objects()
        await self._measure()
        if self._clock.monotonic() - self._swept_at >= self._settings.orphans_every_s:
            await self._sweep()
            self._swept_at = self._clock.monotonic()

    async def _stamp(self) -> int:
        find = partial(retention.unstamped, retention_s=self._retention_s)
        if moments := await self._db.read(find):
            await self._db.write(partial(retention.stamp, moments=moments))
        return len(moments)

    async def _forget(self) -> int:
        now = self._clock.now()
        due = await self._due()
        if not due:
            return 0
        ids = [one.id for one in due]
        gone = await self._db.write(partial(retention.forget, ids=ids, now=now))
        self._metrics.freed("expired", 0, sum(one.inline_bytes for one in gone))
        await self._delete("expired", _keys(gone))
        return len(gone)

    async def _free_objects(self) -> None:
        """On a full disk: by their date nobody may read these any more, whatever the row says."""
        await self._delete("expired", _keys(await self._due()))

    async def _due(self) -> list[Forgotten]:
        now = self._clock.now()
        before = now - timedelta(seconds=self._retention_s)
        return await self._db.read(partial(retention.due, now=now, finished_before=before))

    async def _expire_files(self) -> int:
        now = self._clock.now()
        ids = await self._db.read(partial(retention.expired_files, now=now))
        if not ids:
            return 0
        files = await self._db.write(partial(retention.hide_files, ids=ids, now=now))
        await self._delete("file", [file.object_key for file in files])
        return len(files)

    async def _drop_rows(self) -> int:
        before = self._clock.now() - timedelta(seconds=self._settings.row_s)
        if not await self._db.read(partial(retention.has_old_rows, before=before)):
            return 0
        return await self._db.write(partial(retention.drop_rows, before=before))

    async def _sweep(self) -> None:
        async with aclosing(self._orphans.sweep()) as swept:
            async for listed in swept:
                self._metrics.freed("orphan", 1, listed.bytes)

    async def _delete(self, why: str, keys: Iterable[str]) -> None:
        await asyncio.gather(*(self._delete_one(why, key) for key in keys))

    async def _delete_one(self, why: str, key: str) -> None:
        async with aclosing(self._objects.list(key)) as found:
            sizes = [listed.bytes async for listed in found if listed.key == key]
        await self._objects.delete(key)
        self._metrics.freed(why, len(sizes), sum(sizes))

    async def _measure(self) -> None:
        oldest = await self._db.read(retention.oldest_kept)
        age = self._clock.now() - oldest if oldest else timedelta(0)
        self._metrics.oldest.set(age / timedelta(seconds=1))


async def _until_none_is_left(step: Callable[[], Awaitable[int]]) -> None:
    while await step():
        pass


def _keys(rows: Iterable[Forgotten]) -> list[str]:
    return [key for row in rows for key in row.keys]
