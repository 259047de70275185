"""The book of use: written in memory as requests end, and to the database every second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from tidegate.protocol.resources import Page, UsageView
from tidegate.spec import Mode
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import OutcomeUnknown, Unavailable
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.usage import UsageKey, Used, add_usage, usage_by_deployment

LOG = logging.getLogger("tidegate.usage")


class UsageBook:
    """Requests and tokens by project, deployment, key and hour.

    A crash loses at most the last second of it: the book is for reading, not for billing disputes.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._pending: dict[UsageKey, Used] = {}
        self._flushing = asyncio.Lock()

    def record(
        self,
        project_id: str,
        served: Served,
        key_id: str | None,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """Count one request."""
        key = UsageKey(
            project_id=project_id,
            deployment=served.name,
            mode=served.mode.value,
            key_id=key_id or "",
            hour=self._clock.now().replace(minute=0, second=0, microsecond=0),
        )
        self._add({key: Used(1, prompt_tokens, completion_tokens)})

    async def summary(self, project_id: str, after: str | None, limit: int) -> Page[UsageView]:
        """What the project used, by deployment and mode, with what is not written yet."""
        async with self._flushing:
            written = await self._db.read(lambda s: usage_by_deployment(s, project_id))
            totals = dict(written)
            for key, used in self._pending.items():
                if key.project_id == project_id:
                    place = key.deployment, key.mode
                    totals[place] = totals.get(place, Used()) + used
        by_cursor = {_cursor(*place): place for place in totals}
        found = sorted(cursor for cursor in by_cursor if after is None or cursor > after)
        has_more = len(found) > limit
        shown = [by_cursor[cursor] for cursor in found[:limit]]
        return Page(
            data=[_view(*place, totals[place]) for place in shown],
            has_more=has_more,
            next=found[limit - 1] if has_more else None,
        )

    async def flush(self) -> None:
        """Write what is pending. What cannot be written now stays pending."""
        # A caller that is cancelled must not part the commit from the clearing.
        await asyncio.shield(asyncio.ensure_future(self._flush()))

    @asynccontextmanager
    async def running(self, every_s: float = 1.0) -> AsyncIterator[None]:
        """Flush regularly inside, and once more at the end."""
        task = asyncio.create_task(self._flush_regularly(every_s))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.flush()

    async def _flush(self) -> None:
        async with self._flushing:
            if not self._pending:
                return
            taken, self._pending = self._pending, {}
            try:
                await self._db.write(lambda session: add_usage(session, taken.items()))
            except OutcomeUnknown:
                LOG.exception("whether usage was written is not known; it is not counted twice")
            except (Unavailable, SQLAlchemyError):
                LOG.exception("usage could not be written; it is kept and tried again")
                self._add(taken)

    async def _flush_regularly(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.flush()

    def _add(self, entries: Mapping[UsageKey, Used]) -> None:
        for key, used in entries.items():
            self._pending[key] = self._pending.get(key, Used()) + used


def _cursor(deployment: str, mode: str) -> str:
    return f"{deployment}:{mode}"


def _view(deployment: str, mode: str, used: Used) -> UsageView:
    return UsageView(
        deployment=deployment,
        mode=Mode(mode),
        requests=used.requests,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )
