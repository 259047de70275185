"""Taking queued rows in order, at a cost that does not grow with the queue.

The order is that of `ix_invocation_claim`: priority, projects in turn, the earliest deadline, then
lines that begin alike, then age. Each query is a seek in that index and reads only what it takes:
the next level of priority, the next project after one, the first rows of a project. What backs off
is not in the index at all until its time has come (`promote`), so it is not passed over again and
again.

Every unit here locks what it takes and skips what others have locked, so it may be `Guarded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, update
from sqlmodel import Session, col, select, text

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.domain.shares import Turns, even_shares
from tidegate_controlplane.store.endings import BULK
from tidegate_controlplane.store.invocations import LINE_PRIORITY
from tidegate_controlplane.store.tables import CLAIMABLE, DELAYED, Invocation

CLOCK_MOVED = timedelta(minutes=5)
"""No back-off is that long: what may not run before then was written before the clock went back."""
_FIRST, _BEYOND = -(2**31), 2**31 - 1
"""Priorities that none comes before, and none reaches."""


def claim(
    session: Session,
    deployment_id: str,
    owner: str,
    now: datetime,
    *,
    alone: int,
    lines: int,
    turns: Turns = Turns(),
) -> list[Invocation]:
    """Lease at most `alone` due invocations, and at most `lines` requests in all with batch lines.

    Invocations come first. What is past its deadline is left to `expire`.
    """
    queue = _Queue(session, deployment_id, owner, now)
    chosen = queue.take(alone, _FIRST, LINE_PRIORITY, turns.alone)
    return chosen + queue.take(lines - len(chosen), LINE_PRIORITY, _BEYOND, turns.lines)


def turns_after(turns: Turns, claimed: Sequence[Invocation]) -> Turns:
    """Whose turn was last, once these were claimed."""
    alone, lines = turns.alone, turns.lines
    for row in claimed:
        if row.priority < LINE_PRIORITY:
            alone = row.project_id
        else:
            lines = row.project_id
    return Turns(alone, lines)


def has_promotable(session: Session, now: datetime) -> bool:
    """Whether `promote` would find something."""
    query = select(Invocation.id).where(text(DELAYED), _is_over(now))
    return session.exec(query.limit(1)).first() is not None


def promote(session: Session, now: datetime) -> int:
    """Let what has backed off long enough be claimed again; at most BULK rows. Returns how many."""
    query = (
        select(Invocation.id)
        .where(text(DELAYED), _is_over(now))
        .order_by(col(Invocation.available_at))
        .limit(BULK)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.exec(query))
    session.execute(
        update(Invocation)
        .where(col(Invocation.id).in_(ids))
        .values(delayed=False)
        .execution_options(synchronize_session=False)
    )
    return len(ids)


def _is_over(now: datetime) -> ColumnElement[bool]:
    available_at = col(Invocation.available_at)
    return or_(available_at <= now, available_at > now + CLOCK_MOVED)


def deployments_with_work(session: Session) -> list[str]:
    """The deployments that something can be claimed for: one seek for each of them."""
    found: list[str] = []
    while True:
        query = select(func.min(Invocation.deployment_id)).where(
            text(CLAIMABLE), col(Invocation.deployment_id) > (found[-1] if found else "")
        )
        if (following := session.exec(query).one()) is None:
            return found
        found.append(following)


class _Queue:
    """What can be claimed of one deployment."""

    def __init__(self, session: Session, deployment_id: str, owner: str, now: datetime) -> None:
        self._session = session
        self._owner = owner
        self._now = now
        self._mine = (text(CLAIMABLE), col(Invocation.deployment_id) == deployment_id)

    def take(self, room: int, priority: int, below: int, last: str) -> list[Invocation]:
        """At most `room` rows of levels from `priority` on, the projects after `last` first."""
        taken: list[Invocation] = []
        while len(taken) < room:
            level = self._level(priority, below)
            if level is None:
                break
            taken += self._take_level(room - len(taken), level, last)
            priority = level + 1
        return taken

    def _take_level(self, room: int, level: int, last: str) -> list[Invocation]:
        """Round after round, until the room is filled or no project has more."""
        taken: list[Invocation] = []
        projects = self._projects(room, level, last)
        while projects and len(taken) < room:
            ids: list[str] = []
            more: list[str] = []
            for project_id, share in even_shares(projects, room - len(taken)):
                found = self._first(project_id, level, share)
                ids += found
                if len(found) == share:
                    more.append(project_id)
            taken += self._lease(ids)
            projects = more
        return taken

    def _level(self, priority: int, below: int) -> int | None:
        query = select(func.min(Invocation.priority)).where(
            *self._mine, col(Invocation.priority) >= priority, col(Invocation.priority) < below
        )
        return self._session.exec(query).one()

    def _projects(self, most: int, level: int, last: str) -> list[str]:
        """At most `most` projects that wait at this level: those after `last`, then the others."""
        found = self._projects_after(last, most, level)
        if len(found) < most and last:
            first = self._projects_after("", most - len(found), level)
            found += [project_id for project_id in first if project_id <= last]
        return found

    def _projects_after(self, last: str, most: int, level: int) -> list[str]:
        """One seek for each, in one query (a loose index scan)."""
        at_level = (
            *self._mine,
            col(Invocation.priority) == level,
            col(Invocation.due_at) >= self._now,
        )
        following = select(func.min(Invocation.project_id).label("id"))
        walk = following.where(*at_level, col(Invocation.project_id) > last).cte(
            "walk", recursive=True
        )
        after = following.where(*at_level, col(Invocation.project_id) > walk.c.id)
        walk = walk.union_all(
            select(after.scalar_subquery().label("id"))
            .select_from(walk)
            .where(walk.c.id.is_not(None))
        )
        query = select(walk.c.id).where(walk.c.id.is_not(None)).limit(most)
        return list(self._session.exec(query))

    def _first(self, project_id: str, level: int, most: int) -> list[str]:
        """The ids of the first `most` of one project, locked."""
        query = (
            select(Invocation.id)
            .where(
                *self._mine,
                col(Invocation.priority) == level,
                col(Invocation.project_id) == project_id,
                col(Invocation.due_at) >= self._now,
            )
            .order_by(
                col(Invocation.due_at),
                col(Invocation.affinity),
                col(Invocation.created_at),
                col(Invocation.id),
            )
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        return list(self._session.exec(query))

    def _lease(self, ids: Sequence[str]) -> list[Invocation]:
        """Make them this owner's, and return the rows in this order."""
        change = (
            update(Invocation)
            .where(col(Invocation.id).in_(ids))
            .values(
                status=InvocationState.RUNNING.value,
                lease_owner=self._owner,
                lease_epoch=Invocation.lease_epoch + 1,
                attempt=Invocation.attempt + 1,
                started_at=func.coalesce(Invocation.started_at, self._now),
                claimed_at=self._now,
            )
            .returning(Invocation)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        leased = list(self._session.scalars(change))
        # failpoint claim.before_commit
        place = {invocation_id: number for number, invocation_id in enumerate(ids)}
        return sorted(leased, key=lambda row: place[row.id])
