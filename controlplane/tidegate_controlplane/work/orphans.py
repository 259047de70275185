"""Objects without a row: a process died between storing one and inserting its row, or a lease was
lost after its result was stored, or before the objects of a deleted row were.

One is deleted only when it is old by the store's clock, when it was found unneeded for a while by
this process's own clock, and when the writer says so once more. Whoever stores an object has to
insert its row within half of that while (`domain.retention`), so none is deleted under a row that
comes late. Names that are not of `object_keys` are nobody's business here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from functools import partial

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.retention import is_orphan_for_long
from tidegate_controlplane.objects.base import LIST_PAGE, Listed, ObjectStore
from tidegate_controlplane.settings import RetentionSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.references import Owner, unneeded
from tidegate_controlplane.work.object_keys import owner_of

MAX_SUSPECTS = 100_000
"""Remembered from one sweep to the next; the others begin to be one in a later sweep."""


class Orphans:
    """Finds them, sweep by sweep, and remembers since when."""

    def __init__(
        self, db: Database, objects: ObjectStore, clock: Clock, settings: RetentionSettings
    ) -> None:
        self._db = db
        self._objects = objects
        self._clock = clock
        self._settings = settings
        self._suspects: dict[Listed, float] = {}
        """And when each was first found (monotonic seconds)."""

    async def sweep(self) -> AsyncGenerator[Listed]:
        """Look at every object once; yields those that were deleted."""
        still: dict[Listed, float] = {}
        async with aclosing(self._old()) as pages:
            async for page in pages:
                ripe = await self._ripe(page, still)
                for listed in await self._unneeded_to_the_writer(ripe):
                    await self._objects.delete(listed.key)
                    yield listed
        self._suspects = still
        await self._objects.drop_unfinished(self._settings.orphan_age_s)

    async def _old(self) -> AsyncGenerator[list[Listed]]:
        """What is old enough and has an owner's name, a page at a time."""
        before = self._clock.now() - timedelta(seconds=self._settings.orphan_age_s)
        page: list[Listed] = []
        async with aclosing(self._objects.list()) as found:
            async for listed in found:
                if listed.modified_at <= before and owner_of(listed.key):
                    page.append(listed)
                if len(page) == LIST_PAGE:
                    yield page
                    page = []
        yield page

    async def _ripe(self, page: list[Listed], still: dict[Listed, float]) -> list[Listed]:
        """Those found unneeded for long; younger suspects are remembered in `still`."""
        now = self._clock.monotonic()
        alone = await self._db.read(partial(unneeded, owners=_owners(page)))
        ripe = []
        for listed in page:
            if listed.key not in alone:
                continue
            since = self._suspects.get(listed, now)
            if is_orphan_for_long(since, now, self._settings.orphan_grace_s):
                ripe.append(listed)
            elif len(still) < MAX_SUSPECTS:
                still[listed] = since
        return ripe

    async def _unneeded_to_the_writer(self, ripe: list[Listed]) -> list[Listed]:
        if not ripe:
            return []
        alone = await self._db.write(partial(unneeded, owners=_owners(ripe)))
        return [listed for listed in ripe if listed.key in alone]


def _owners(page: list[Listed]) -> dict[str, Owner]:
    found = {listed.key: owner_of(listed.key) for listed in page}
    return {key: owner for key, owner in found.items() if owner}
