"""A process that dies at any write: the next one goes on, and each custom_id is answered once.

The database and the object store die together, before or after the N-th thing that is written,
for every N until the batch gets through. Whatever the dead process still tries, nothing lands.
"""

from __future__ import annotations

import asyncio

import pytest

from tidegate.spec import Mode
from tidegate_controlplane.store.files import Page

LINES = ["a", "b", "c", "d"]


class Killed(Exception):
    """The process is dead."""


class Fate:
    """Lets a number of writes happen, and then none."""

    def __init__(self, dies_at, after):
        self.left = dies_at
        self.after = after
        self.is_dead = False

    async def meet(self, write):
        if self.is_dead:
            raise Killed
        self.left -= 1
        if self.left:
            return await write()
        self.is_dead = True
        if self.after:
            await write()
        raise Killed


class MortalDatabase:
    shared = False

    def __init__(self, database, fate):
        self.database, self.fate = database, fate

    async def write(self, unit):
        return await self.fate.meet(lambda: self.database.write(unit))

    async def read(self, unit):
        if self.fate.is_dead:
            raise Killed
        return await self.database.read(unit)


class MortalObjects:
    def __init__(self, objects, fate):
        self.objects, self.fate = objects, fate

    async def put(self, key, chunks, max_bytes=None):
        return await self.fate.meet(lambda: self.objects.put(key, chunks, max_bytes))

    async def delete(self, key):
        await self.fate.meet(lambda: self.objects.delete(key))

    def __getattr__(self, name):
        return getattr(self.objects, name)


async def live_and_die(house, fate, is_over):
    """A process that works until it dies, or until `is_over`."""
    others = asyncio.all_tasks()
    work = house.work(db=MortalDatabase(house.db, fate), objects=MortalObjects(house.objects, fate))
    starting = asyncio.create_task(work.start())
    while not fate.is_dead and not await is_over():
        await asyncio.sleep(0.005)
    fate.is_dead = True
    left = asyncio.all_tasks() - others | {starting}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def once(house, kit):
    """Run a batch, killed once; the finished batch, and its output and error lines."""

    async def run(lines, fate, prepare=None):
        quiet = house.work()
        batch_id = await house.batch(quiet, lines)
        if prepare:
            await prepare(batch_id)

        async def is_over():
            return (await quiet.batches.get(kit.principal, batch_id)).status.is_final

        await live_and_die(house, fate, is_over)
        survived = await is_over()
        async with house.working() as work:
            done = await house.ended(work, batch_id)
            output = await house.lines_of(work, done.output_file_id)
            errors = await house.lines_of(work, done.error_file_id)
            files = await work.files.list(kit.principal, Page(limit=100))
        named = {done.output_file_id, done.error_file_id} - {None}
        listed = {file.id for file in files.data if file.filename.startswith(batch_id)}
        assert listed == named
        return survived, done, output, errors

    return run


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_batch_completes_whichever_write_its_process_died_at(house, kit, once, after):
    await house.deploy(mode=Mode.BATCH, capacity=2)
    big = {"model": "m", "messages": [{"role": "user", "content": "x" * 2000}]}
    lines = [kit.line("a"), b"junk", kit.line("b", body=big), kit.line("c"), kit.line("d")]
    for dies_at in range(1, 60):
        survived, done, output, errors = await once(lines, Fate(dies_at, after))
        assert done.status == "completed", dies_at
        assert [line["custom_id"] for line in output] == LINES, dies_at
        assert [line["custom_id"] for line in errors] == [None], dies_at
        assert done.request_counts.model_dump() == {"total": 5, "completed": 4, "failed": 1}
        if survived:
            break
    assert dies_at > 10, "it must have died at every kind of write"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_batch_is_cancelled_whichever_write_its_process_died_at(house, kit, once, after):
    served = await house.deploy(mode=Mode.BATCH, capacity=0)

    async def cancel(batch_id):
        async with house.working() as work:
            await kit.until(
                lambda: work.batches.get(kit.principal, batch_id),
                lambda batch: batch.status == "in_progress",
            )
        await house.work().batches.cancel(kit.principal, batch_id)

    for dies_at in range(1, 60):
        survived, done, output, errors = await once(
            [kit.line(name) for name in LINES], Fate(dies_at, after), cancel
        )
        assert (done.status, output) == ("cancelled", []), dies_at
        assert [line["custom_id"] for line in errors] == LINES, dies_at
        if survived:
            break
    assert dies_at > 3, "it must have died at every kind of write"
    assert house.endpoints.demand(served.deployment_id).in_flight == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_invocation_has_one_result_whichever_write_its_process_died_at(house, kit, after):
    await house.deploy()
    quiet = house.work()
    for dies_at in range(1, 20):
        fate = Fate(dies_at, after)
        invocation_id = await house.submit(quiet, "x" * 2000)

        async def is_over(invocation_id=invocation_id):
            found = await quiet.invocations.get(kit.principal, invocation_id)
            return found.status.is_final

        await live_and_die(house, fate, is_over)
        survived = await is_over()
        async with house.working() as work:
            done = await house.finished(work, invocation_id)
        assert (done.status, done.attempt) == ("succeeded", 1), dies_at
        if survived:
            break
    assert dies_at > 3
