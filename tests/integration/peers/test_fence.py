"""The fence: what a leader writes lands only while it leads. On a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlmodel import Session, select

from tidegate_controlplane.domain.leadership import Claim
from tidegate_controlplane.peers.fence import Fenced
from tidegate_controlplane.store import leadership
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.leadership import Deposed
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.store.tables import Project

NOBODY = Claim("", 0, 0)


@pytest.fixture
def database(postgres):
    found = PostgresDatabase(postgres.database())
    yield found
    found.close()


def add(session):
    from datetime import UTC, datetime

    session.add(Project(id="prj_x", name="x", created_at=datetime.now(UTC)))


async def projects(database):
    return await database.read(lambda s: [row.id for row in s.exec(select(Project))])


async def take_over(database, seen, owner):
    return await database.write(Guarded(lambda s: leadership.take_over(s, seen, owner)))


async def claim(database):
    return await database.read(leadership.read_claim)


async def test_a_write_of_the_term_lands_and_one_of_a_former_term_does_not(database):
    first = Fenced(database, await take_over(database, NOBODY, "one"))
    await first.read(lambda s: None)
    second = Fenced(database, await take_over(database, await claim(database), "two"))
    for late in (first.write, first.read):
        with pytest.raises(Deposed):
            await late(add)
    assert await projects(database) == []
    await second.write(add)
    assert await projects(database) == ["prj_x"]


async def test_of_two_that_take_over_at_once_one_leads(database):
    found = await asyncio.gather(*(take_over(database, NOBODY, f"{n}") for n in range(8)))
    assert sorted(found, key=str) == [1, *[None] * 7]


async def test_a_beat_that_came_meanwhile_makes_a_takeover_void(database):
    epoch = await take_over(database, NOBODY, "one")
    seen = await claim(database)
    await database.write(Guarded(lambda s: leadership.beat(s, epoch)))
    assert await take_over(database, seen, "two") is None


async def test_a_takeover_waits_for_a_write_that_has_begun(database):
    """Otherwise it would land after the new leader has looked."""
    epoch = await take_over(database, NOBODY, "one")
    begun, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        add(session)
        session.flush()
        begun.set()
        assert go_on.wait(60)

    writing = asyncio.create_task(Fenced(database, epoch).write(slow))
    await asyncio.to_thread(begun.wait, 60)
    taking = asyncio.create_task(take_over(database, await claim(database), "two"))
    done, _ = await asyncio.wait([taking], timeout=0.3)
    assert not done
    go_on.set()
    await writing
    assert await taking == epoch + 1
    assert await projects(database) == ["prj_x"]


async def test_a_write_that_was_decided_before_a_takeover_and_begins_after_it_is_void(database):
    """Its snapshot is older than the takeover, and yet it does not land."""
    epoch = await take_over(database, NOBODY, "one")
    seen, loop = await claim(database), asyncio.get_running_loop()

    def overtaken(session: Session) -> None:
        session.exec(select(Project)).all()  # the snapshot is taken here
        taking = asyncio.run_coroutine_threadsafe(take_over(database, seen, "two"), loop)
        taking.result(60)
        leadership.hold_term(session, epoch)
        add(session)

    with pytest.raises(Deposed):
        await database.write(overtaken)
    assert await projects(database) == []


async def test_one_that_stepped_down_is_followed_at_once_and_a_former_one_cannot(database):
    first = await take_over(database, NOBODY, "one")
    await database.write(Guarded(lambda s: leadership.step_down(s, first)))
    assert (await claim(database)).owner == ""
    second = await take_over(database, await claim(database), "two")
    await database.write(Guarded(lambda s: leadership.step_down(s, first)))
    assert (await claim(database)).epoch == second
    assert (await claim(database)).owner == "two"
    with pytest.raises(Deposed):
        await database.write(Guarded(lambda s: leadership.beat(s, first)))
