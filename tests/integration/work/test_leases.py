"""Workers that die, stop, or come back too late."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.store import claims, invocations, leases
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.leases import LeaseKeeper
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.worker import Worker


async def claimed_by(house, served, owner):
    [row] = await house.db.write(
        lambda s: claims.claim(s, served.deployment_id, owner, house.clock.now(), alone=1, lines=1)
    )
    return row


async def test_what_a_dead_process_had_begun_runs_again_at_once_and_no_attempt_is_lost(house, kit):
    served = await house.deploy()
    invocation_id = await house.submit(house.work())
    await claimed_by(house, served, "wrk_dead")
    async with asyncio.timeout(60):  # less than a lease
        async with house.working(settings=house.with_work(lease_s=600)) as work:
            done = await house.finished(work, invocation_id)
    assert (done.status, done.attempt) == ("succeeded", 1)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_on_a_shared_database_a_start_takes_nothing_from_others_who_may_live(house):
    served = await house.deploy()
    invocation_id = await house.submit(house.work())
    await claimed_by(house, served, "wrk_other")
    plane, notices = house.plane(), Notices()
    await LeaseKeeper(plane, Worker(plane, notices), notices, "me").recover()
    [held] = await house.db.read(leases.leased)
    assert (held.lease, held.owner) == (Lease(invocation_id, 1), "wrk_other")


@pytest.mark.both_engines
async def test_a_result_that_comes_after_the_lease_was_lost_changes_nothing(house, kit):
    served = await house.deploy()
    invocation_id = await house.submit(house.work())
    late = Lease.of(await claimed_by(house, served, "wrk_dead"))
    async with house.working() as work:
        done = await house.finished(work, invocation_id)
        result = Result(b'{"text": "late"}', None, 1, 1)
        assert not await house.db.write(
            lambda s: leases.succeed(s, late, house.clock.now(), result)
        )
        assert await work.invocations.get(kit.principal, invocation_id) == done
        kept = await work.invocations.result(kit.principal, invocation_id)
    assert json.loads(kept)["text"] == "echo hi"


async def test_a_late_large_result_leaves_no_object_behind(house, kit):
    served = await house.deploy()
    work = house.work()
    invocation_id = await house.submit(work)
    row = await claimed_by(house, served, "me")

    async def behave(prompt):
        lease = Lease.of(row)
        now = house.clock.now()
        await house.db.write(
            lambda s: leases.requeue(s, lease, now, available_at=now, counted=True)
        )
        return kit.said("x" * 5000)

    house.replicas.behaviour = behave
    worker = Worker(house.plane(), Notices())
    worker.start(row, served)
    await worker.drain(5)
    assert (await work.invocations.get(kit.principal, invocation_id)).status == "queued"
    assert not await house.objects.exists(f"prj_1/results/{invocation_id}/1")
    assert house.book.records == []


@pytest.mark.both_engines
async def test_a_lease_that_nobody_beats_for_is_taken_back(house, kit):
    served = await house.deploy()
    async with house.working() as work:
        house.replicas_of(served, 0)
        invocation_id = await house.submit(work)
        await claimed_by(house, served, "wrk_silent")
        house.replicas_of(served, 1)
        done = await house.finished(work, invocation_id)
    assert (done.status, done.attempt) == ("succeeded", 2)


async def test_a_lease_that_is_lost_for_the_last_time_is_dead_with_its_cause(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        row = await claimed_by(house, served, "wrk_silent")

        def last(session):
            found = session.get(Invocation, row.id)
            found.attempt = found.max_attempts
            session.add(found)

        await house.db.write(last)
        done = await house.finished(work, invocation_id)
    assert (done.status, done.error.code) == ("dead", "worker_lost")


async def test_a_run_that_is_longer_than_a_lease_keeps_it(house, kit):
    await house.deploy()
    lease_s = house.settings.work.lease_s
    house.replicas.behaviour = lambda prompt: asyncio.sleep(2.5 * lease_s, kit.said("slow"))
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work))
    assert (done.status, done.attempt) == ("succeeded", 1)


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)], ids=["ahead", "back"])
async def test_a_wall_clock_that_jumps_loses_no_lease(house, kit, jump):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.8, kit.said("slow"))
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), bool)
        house.clock.ahead += jump
        done = await house.finished(work, invocation_id)
    assert (done.status, done.attempt) == ("succeeded", 1)
    assert house.replicas.asked == ["hi"]


@pytest.mark.both_engines
async def test_a_worker_that_lost_its_lease_hangs_up(house, kit):
    served = await house.deploy(capacity=1)
    work = house.work()
    await house.submit(work)
    row = await claimed_by(house, served, "me")
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    plane, notices = house.plane(), Notices()
    worker = Worker(plane, notices)
    worker.start(row, served)
    await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), bool)
    lease, now = Lease.of(row), house.clock.now()
    await house.db.write(lambda s: leases.requeue(s, lease, now, available_at=now, counted=True))
    await LeaseKeeper(plane, worker, notices, "me").tick()
    await asyncio.wait_for(worker.drain(600), 60)
    assert house.replicas.hung_up == ["hi"]


async def test_a_cancellation_that_missed_the_worker_reaches_it_with_the_next_beat(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), bool)

        def mark(session):
            row = invocations.get(session, "prj_1", invocation_id)
            assert invocations.cancel(session, row, house.clock.now())

        await house.db.write(mark)
        assert (await house.finished(work, invocation_id)).status == "canceled"
    assert house.replicas.hung_up == ["hi"]


@pytest.mark.both_engines
async def test_stopping_lets_short_runs_end_and_hands_long_ones_back(house, kit):
    await house.deploy()

    async def behave(prompt):
        await asyncio.sleep(0.05 if prompt == "short" else 60)
        return kit.said(prompt)

    house.replicas.behaviour = behave
    patient = house.settings.model_copy(update={"shutdown_s": 2.0})
    async with house.working(settings=patient) as work:
        short, long = await house.submit(work, "short"), await house.submit(work, "long")
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), lambda n: len(n) == 2)
    assert house.replicas.hung_up == ["long"]
    work = house.work()
    assert (await work.invocations.get(kit.principal, short)).status == "succeeded"
    handed_back = await work.invocations.get(kit.principal, long)
    assert (handed_back.status, handed_back.attempt) == ("queued", 0)


async def test_while_no_beat_can_be_written_nobody_is_judged_for_lacking_one(house, kit):
    served = await house.deploy(capacity=1)
    invocation_id = await house.submit(house.work())
    row = await claimed_by(house, served, "me")
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    db = Full(house.db)
    plane, notices = house.plane(db=db), Notices()
    worker = Worker(plane, notices)
    worker.start(row, served)
    keeper = LeaseKeeper(plane, worker, notices, "me")
    await keeper.tick()
    db.is_full = True
    with pytest.raises(Unavailable):
        await keeper.tick()
    await asyncio.sleep(house.settings.work.lease_s)
    db.is_full = False
    await keeper.tick()
    [held] = await house.db.read(leases.leased)
    assert held.lease == Lease(invocation_id, 1)
    await worker.drain(0)


class Full:
    """A database that can be read, and not be written while its disk is full."""

    def __init__(self, database):
        self.database = database
        self.is_full = False

    def __getattr__(self, name):
        return getattr(self.database, name)

    async def write(self, unit):
        if self.is_full:
            raise Unavailable("full")
        return await self.database.write(unit)


class NeverSays:
    """A database that commits what is claimed, and does not come to say so."""

    def __init__(self, database):
        self.database = database

    async def write(self, unit):
        found = await self.database.write(unit)
        if isinstance(found, list) and any(isinstance(each, Invocation) for each in found):
            await asyncio.Event().wait()
        return found

    def __getattr__(self, name):
        return getattr(self.database, name)


async def test_what_was_claimed_but_not_begun_when_the_process_stops_is_handed_back(house, kit):
    await house.deploy()
    invocation_id = await house.submit(house.work())
    work = house.work(db=NeverSays(house.db))
    await work.start()
    look = house.work().invocations.get
    await kit.until(
        lambda: look(kit.principal, invocation_id), lambda found: found.status == "running"
    )
    await work.stop()
    assert (await look(kit.principal, invocation_id)).status == "queued"
    assert house.replicas.asked == []
