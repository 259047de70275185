"""What is kept no longer goes, what is needed stays, whatever dies in between."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event
from sqlmodel import Session, select

from tidegate_controlplane.errors import BadRequest, Conflict, Gone, NotFound, Unavailable
from tidegate_controlplane.settings import RetentionSettings
from tidegate_controlplane.store import retention as rows
from tidegate_controlplane.store.tables import Batch, File, Invocation
from tidegate_controlplane.work.orphans import Orphans
from tidegate_controlplane.work.retention import Retention

LARGE = "x" * 5000
WEEK = timedelta(days=7)
RETENTION = RetentionSettings(orphan_age_s=3600, orphan_grace_s=600)


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, clock):
        self._clock = clock
        self.ahead_s = 0.0

    def now(self):
        return self._clock.now()

    def monotonic(self):
        return self._clock.monotonic() + self.ahead_s


def files_of(house):
    root = house.settings.objects_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def age(house, hours=2):
    """Make every object older, on the store's own clock."""
    for path in house.settings.objects_dir.rglob("*"):
        if path.is_file():
            moment = path.stat().st_mtime - hours * 3600
            os.utime(path, (moment, moment))


async def done(house, work, prompt=LARGE, **terms):
    invocation_id = await house.submit(work, prompt, **terms)
    await house.finished(work, invocation_id)
    return invocation_id


# --- bodies and results ---------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hi", LARGE])
async def test_bodies_and_results_go_with_their_time_and_the_row_stays_a_while(house, kit, prompt):
    await house.deploy()
    registry = CollectorRegistry()
    async with house.working() as work:
        invocation_id = await done(house, work, prompt)
        retention = Retention(house.plane(registry=registry))
        house.clock.ahead += WEEK - timedelta(minutes=1)
        await retention.tick()
        assert (await house.row(invocation_id)).forgotten_at is None
        assert registry.get_sample_value("tidegate_retention_oldest_seconds") > 600_000
        assert await work.invocations.result(kit.principal, invocation_id)
        house.clock.ahead += timedelta(minutes=2)
        await retention.tick()
        row = await house.row(invocation_id)
        assert (row.request, row.result, row.request_key, row.result_key) == (None,) * 4
        assert files_of(house) == []
        assert (await work.invocations.get(kit.principal, invocation_id)).status == "succeeded"
        with pytest.raises(Gone):
            await work.invocations.result(kit.principal, invocation_id)
        house.clock.ahead += timedelta(days=30)
        await retention.tick()
        with pytest.raises(NotFound):
            await work.invocations.get(kit.principal, invocation_id)
    freed = registry.get_sample_value("tidegate_retention_freed_bytes_total", {"why": "expired"})
    assert freed > 2 * len(prompt)
    if prompt == LARGE:
        name = "tidegate_retention_objects_total"
        assert registry.get_sample_value(name, {"why": "expired"}) == 2


async def test_a_time_of_its_own_ends_a_result_sooner_and_never_later(house, kit):
    await house.deploy()
    async with house.working() as work:
        short = await done(house, work, result_ttl_s=60)
        usual = await done(house, work)
        house.clock.ahead += timedelta(seconds=61)
        with pytest.raises(Gone):
            await work.invocations.result(kit.principal, short)  # by date, before anything ran
        await Retention(house.plane()).tick()
        assert (await house.row(short)).forgotten_at is not None
        assert (await house.row(usual)).forgotten_at is None
        with pytest.raises(BadRequest, match="result_ttl_s: at most 604800"):
            await house.submit(work, result_ttl_s=WEEK.total_seconds() + 1)


async def test_what_is_unfinished_keeps_its_body_however_old_it_is(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        waiting = await house.submit(work, LARGE, expires_in_s=86_400 * 400)
        house.clock.ahead += timedelta(days=300)
        await Retention(house.plane()).tick()
        assert len(files_of(house)) == 1
        house.replicas_of(served, 1)
        await house.finished(work, waiting)


async def test_a_deleted_invocation_loses_body_and_result_at_once(house, kit):
    served = await house.deploy()
    async with house.working() as work:
        invocation_id = await done(house, work)
        for _ in range(2):  # a repeated request is no error
            await work.invocations.delete(kit.principal, invocation_id)
        assert files_of(house) == []
        with pytest.raises(Gone, match="was deleted"):
            await work.invocations.result(kit.principal, invocation_id)
        with pytest.raises(NotFound):
            await work.invocations.delete(kit.stranger, invocation_id)
        house.replicas_of(served, 0)
        waiting = await house.submit(work, LARGE)
        with pytest.raises(Conflict, match="cancel it first"):
            await work.invocations.delete(kit.principal, waiting)
        assert len(files_of(house)) == 1


@pytest.mark.parametrize("step", ["forget", "delete"])
async def test_a_collection_that_is_killed_is_finished_by_the_next(house, kit, monkeypatch, step):
    await house.deploy()
    async with house.working() as work:
        kept = await done(house, work)
        await done(house, work, result_ttl_s=1)
    house.clock.ahead += timedelta(seconds=2)

    async def killed(*_):
        raise asyncio.CancelledError

    clock = Clock(house.clock)
    retention = Retention(house.plane(clock=clock, settings=with_retention(house)))
    with monkeypatch.context() as patched:
        target = house.db if step == "forget" else house.objects
        patched.setattr(target, "write" if step == "forget" else "delete", killed)
        with pytest.raises(asyncio.CancelledError):
            await retention.tick()
    assert len(files_of(house)) == 4
    age(house)
    again = Retention(house.plane(clock=clock, settings=with_retention(house)))
    await again.tick()
    clock.ahead_s += 3600
    await again.tick()
    assert [kept in name for name in files_of(house)] == [True, True]


def with_retention(house, **changes):
    return house.settings.model_copy(
        update={"retention": RETENTION.model_copy(update=changes or {})}
    )


# --- batches and files ----------------------------------------------------------------------------


async def test_a_batch_goes_in_order_and_a_batch_under_way_loses_nothing(house, kit):
    served = await house.deploy()
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a"), kit.line("b")])
        batch = await house.ended(work, batch_id)
        assert batch.output_file_id
        file = await work.files.get(kit.principal, batch.output_file_id)
        assert file.expires_at == pytest.approx(file.created_at + 7 * 86_400, abs=2)
        house.replicas_of(served, 0)
        going = await house.batch(work, [kit.line("c")])
        await kit.until(lambda: work.batches.get(kit.principal, going), lambda b: b.in_progress_at)

        def end_line(session):
            row = session.exec(lines(going)).one()
            row.finished_at = house.clock.now() - timedelta(days=40)
            row.status = "failed"
            session.add(row)

        work._batching._task.cancel()  # the batch stays under way though its line has ended
        await asyncio.wait([work._batching._task])
        await house.db.write(end_line)
        retention = Retention(house.plane())
        house.clock.ahead += WEEK + timedelta(minutes=1)
        await retention.tick()
        with pytest.raises(NotFound):
            await work.files.get(kit.principal, batch.output_file_id)
        assert (await work.batches.get(kit.principal, batch_id)).request_counts.completed == 2
        house.clock.ahead += timedelta(days=30)
        await retention.tick()
        with pytest.raises(NotFound):
            await work.batches.get(kit.principal, batch_id)
        found = await house.db.read(lambda session: session.exec(lines(going)).one())
        assert found.request is not None and found.forgotten_at is None
        remaining = await house.db.read(
            lambda session: (session.get(Batch, going), session.get(File, batch.output_file_id))
        )
        assert remaining[0] is not None and remaining[1] is None


def lines(batch_id):
    return select(Invocation).where(Invocation.batch_id == batch_id)


async def test_a_file_past_its_time_goes_unless_an_unfinished_batch_reads_it(house, kit):
    await house.deploy(capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a")])
        read_by = (await work.batches.get(kit.principal, batch_id)).input_file_id
        alone = await house.upload(work, b"{}\n")

        def expire(session):
            for file_id in (read_by, alone):
                file = session.get(File, file_id)
                file.expires_at = house.clock.now()
                session.add(file)

        await house.db.write(expire)
        await Retention(house.plane()).tick()
        with pytest.raises(NotFound):
            await work.files.get(kit.principal, alone)
        assert files_of(house) == [f"prj_1/files/{read_by}"]


@pytest.mark.both_engines
async def test_a_file_past_its_time_goes_while_a_batch_runs_that_reads_no_file(house):
    await house.upload(house.work(), b"{}\n")
    tables = Batch(
        id="batch_tables",
        project_id="prj_1",
        status="in_progress",
        endpoint="/v1/chat/completions",
        completion_window="24h",
        created_at=house.clock.now(),
    )
    await house.db.write(lambda session: session.add(tables))
    house.clock.ahead += timedelta(days=31)
    await Retention(house.plane()).tick()
    assert files_of(house) == []


# --- orphans --------------------------------------------------------------------------------------


async def sweep(orphans):
    return [listed.key async for listed in orphans.sweep()]


ORPHANS = [
    "prj_1/requests/inv_gone",
    "prj_1/results/inv_gone/3",
    "prj_1/files/file_gone",
    "prj_1/batches/batch_gone/requests/7",
    "prj_1/batches/batch_gone/output.jsonl",
]


async def test_only_what_is_old_and_long_without_a_row_is_an_orphan(house, kit):
    await house.deploy()
    async with house.working() as work:
        needed = await done(house, work)
        await house.upload(work, b"{}\n")
    for key in [*ORPHANS, "prj_1/somebody/elses", "leases/x"]:
        await house.objects.put(key, [b"x"])
    clock = Clock(house.clock)
    orphans = Orphans(house.db, house.objects, clock, RETENTION)
    assert await sweep(orphans) == []
    clock.ahead_s += 600
    assert await sweep(orphans) == []  # too young by the store's clock, however long it was seen
    age(house)
    assert await sweep(orphans) == []
    clock.ahead_s += 599
    assert await sweep(orphans) == []
    clock.ahead_s += 1
    assert sorted(await sweep(orphans)) == sorted(ORPHANS)
    assert len(files_of(house)) == 5 and any(needed in name for name in files_of(house))


async def test_a_wall_clock_that_jumps_makes_no_orphans(house, kit):
    await house.objects.put(ORPHANS[0], [b"x"])
    orphans = Orphans(house.db, house.objects, house.clock, RETENTION)
    for _ in range(3):
        house.clock.ahead += timedelta(days=365)
        assert await sweep(orphans) == []


async def test_the_result_of_a_run_that_may_still_publish_it_is_no_orphan(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        row = await kit.until(lambda: house.row(invocation_id), lambda row: row.lease_epoch)
        present, lost = (f"prj_1/results/{invocation_id}/{epoch}" for epoch in (row.lease_epoch, 0))
        for key in (present, lost):
            await house.objects.put(key, [b"{}"])
        age(house)
        clock = Clock(house.clock)
        orphans = Orphans(house.db, house.objects, clock, RETENTION)
        await sweep(orphans)
        clock.ahead_s += 600
        assert await sweep(orphans) == [lost]


async def test_a_row_that_is_inserted_before_the_last_look_keeps_its_object(
    house, kit, monkeypatch
):
    await house.deploy(capacity=0)
    work, clock = house.work(), Clock(house.clock)
    orphans = Orphans(house.db, house.objects, clock, RETENTION)
    submit = asyncio.create_task(paused_submission(house, work, monkeypatch))
    opened = await submit
    age(house)
    assert await sweep(orphans) == []
    clock.ahead_s += 600
    write = house.db.write

    async def insertion_first(unit):
        house.db.write = write
        await opened.go_on()
        return await write(unit)

    house.db.write = insertion_first
    assert await sweep(orphans) == []
    assert len(files_of(house)) == 1


async def test_a_row_that_comes_after_its_object_went_is_refused(house, kit, monkeypatch):
    await house.deploy(capacity=0)
    clock = Clock(house.clock)
    work = house.work(clock=clock)
    orphans = Orphans(house.db, house.objects, clock, RETENTION)
    opened = await paused_submission(house, work, monkeypatch)
    age(house)
    await sweep(orphans)
    clock.ahead_s += 600
    assert len(await sweep(orphans)) == 1
    with pytest.raises(Unavailable, match="storing the body took too long"):
        await opened.go_on()
    listed = await work.invocations.list(kit.principal, after=None, limit=5)
    assert listed.data == []


class Paused:
    """A submission whose object is stored, and whose row is not inserted yet."""

    def __init__(self, submitting, gate):
        self._submitting, self._gate = submitting, gate

    async def go_on(self):
        self._gate.set()
        return await self._submitting


async def paused_submission(house, work, monkeypatch):
    gate, stored = asyncio.Event(), asyncio.Event()
    put = house.objects.put

    async def put_and_wait(key, chunks, max_bytes=None):
        done = await put(key, chunks, max_bytes)
        stored.set()
        return done

    class Gated:
        """The database of one who is stopped just before the insertion."""

        def __init__(self, db):
            self._db = db

        def __getattr__(self, name):
            return getattr(self._db, name)

        async def write(self, unit):
            await gate.wait()
            return await self._db.write(unit)

    work.invocations._submissions._db = Gated(house.db)
    monkeypatch.setattr(house.objects, "put", put_and_wait)
    submitting = asyncio.create_task(house.submit(work, LARGE))
    await stored.wait()
    return Paused(submitting, gate)


# --- a full disk ----------------------------------------------------------------------------------


async def test_a_full_disk_is_freed_and_new_work_is_taken_again(house, kit, monkeypatch):
    await house.deploy()
    async with house.working() as work:
        await done(house, work)
        house.clock.ahead += WEEK + timedelta(minutes=1)
        write, real, before = os.write, house.db.write, set(files_of(house))

        def full(fd, data):
            if before & set(files_of(house)):
                raise OSError(errno.ENOSPC, "no space")
            return write(fd, data)

        async def no_growth(unit):
            if before & set(files_of(house)):
                raise Unavailable("the platform's storage is full", code="storage_full")
            return await real(unit)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="storage is full"):
            await house.submit(work, LARGE)
        monkeypatch.setattr(house.db, "write", no_growth)
        await Retention(house.plane()).tick()
        assert files_of(house) == []
        assert await done(house, work)


async def test_two_collectors_at_once_delete_everything_once(house, kit):
    await house.deploy()
    async with house.working() as work:
        for _ in range(6):
            await done(house, work)
    house.clock.ahead += WEEK + timedelta(minutes=1)
    registries = [CollectorRegistry(), CollectorRegistry()]
    both = [Retention(house.plane(registry=registry)) for registry in registries]
    await asyncio.gather(*(one.tick() for one in both))
    name = "tidegate_retention_freed_bytes_total"
    assert files_of(house) == []
    kept = await house.db.read(rows.oldest_kept)
    assert kept is None
    assert any(registry.get_sample_value(name, {"why": "expired"}) for registry in registries)


async def test_the_collector_seeks_by_index_in_the_table_that_grows(house):
    plans = []
    with Session(house.db.writer) as session:
        connection = session.connection()

        @event.listens_for(connection, "before_cursor_execute")
        def explain(_connection, cursor, statement, parameters, _context, _many):
            if statement.startswith("SELECT"):
                cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
                plans.extend(step for *_, step in cursor.fetchall())

        now = house.clock.now()
        rows.unstamped(session, 1.0)
        rows.due(session, now, now)
        rows.oldest_kept(session)
        rows.drop_rows(session, now)
        session.rollback()
    found = [plan for plan in plans if " invocation " in plan]
    for index in ("unstamped", "forget", "forget_early", "forgotten"):
        assert any(f"USING INDEX ix_invocation_{index} (" in plan for plan in found), plans
    assert not any("SCAN invocation" in plan for plan in found)
