"""Running again what failed or died: the row goes back to the queue with all its attempts."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import Session

from tidegate.protocol.work import InvocationState, RedriveAnswer, RedriveRequest
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import BadRequest, Conflict, Gone, NotFound
from tidegate_controlplane.gateway.catalog import Catalog
from tidegate_controlplane.store import invocations
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.request import INVOCATION_MODES, Wanted, find

REDRIVEN = frozenset({InvocationState.FAILED, InvocationState.DEAD})


class Redriving:
    """Each row is changed from the state in which it was seen, so asking twice redrives once."""

    def __init__(self, db: Database, catalog: Catalog, clock: Clock, retention_s: float) -> None:
        self._db = db
        self._catalog = catalog
        self._clock = clock
        self._retention = timedelta(seconds=retention_s)

    async def one(self, row: Invocation) -> None:
        """Queue it. Raises Conflict, Gone, and NotFound when no deployment has its name now."""
        deployment_id = self._deployment_of(row)
        now = self._clock.now()
        await self._db.write(lambda session: invocations.redrive(session, row, deployment_id, now))

    async def many(
        self, project_id: str, wanted: RedriveRequest
    ) -> tuple[list[str], RedriveAnswer]:
        """The ids that were queued, and what to say of it."""
        now = self._clock.now()
        state = InvocationState(wanted.status)

        def unit(session: Session) -> tuple[list[str], RedriveAnswer]:
            found = invocations.redrivable(
                session,
                project_id,
                state,
                wanted.model,
                after=wanted.after,
                since=now - self._retention,
                limit=wanted.limit + 1,
            )
            rows, queued = found[: wanted.limit], list[str]()
            for row in rows:
                try:
                    deployment_id = self._deployment_of(row)
                except (NotFound, BadRequest):
                    continue
                if invocations.redrive(session, row, deployment_id, now):
                    queued.append(row.id)
            return queued, RedriveAnswer(
                redriven=len(queued),
                skipped=len(rows) - len(queued),
                last_id=rows[-1].id if rows else None,
                has_more=len(found) > len(rows),
            )

        return await self._db.write(unit)

    def _deployment_of(self, row: Invocation) -> str:
        """Which deployment would run it now: the one that it was for may be gone."""
        if InvocationState(row.status) not in REDRIVEN:
            raise Conflict(
                f"the invocation is {row.status}; only what failed or is dead can run again: "
                "submit it anew",
                code="not_redrivable",
            )
        ended_at = row.finished_at or self._clock.now()
        if row.forgotten_at is not None or ended_at + self._retention <= self._clock.now():
            raise Gone("the request is no longer kept; submit it anew", code="request_gone")
        wanted = Wanted(row.endpoint, row.model)
        return find(self._catalog, row.project_id, wanted, INVOCATION_MODES).deployment_id
