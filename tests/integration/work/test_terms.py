"""What a caller may ask of the queue: order, deadlines, attempts; and running again what died."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from tidegate.protocol.work import RedriveRequest
from tidegate.spec import Mode
from tidegate_controlplane.errors import Conflict, DeadlinePassed, Gone, NotFound
from tidegate_controlplane.store import claims


@pytest.fixture
def failing(house, kit):
    """Replicas that answer 500 until `calm` is set."""
    calm = asyncio.Event()

    async def behave(prompt):
        return kit.said(prompt) if calm.is_set() else kit.refused(500, "out_of_memory")

    house.replicas.behaviour = behave
    return calm


async def dead(house, work, prompt="hi", **terms):
    invocation_id = await house.submit(work, prompt, max_attempts=1, **terms)
    assert (await house.finished(work, invocation_id)).status == "dead"
    return invocation_id


# --- terms ----------------------------------------------------------------------------------------


async def test_the_higher_priority_runs_first_and_lines_of_batches_last(house, kit):
    served = await house.deploy(mode=Mode.ASYNC, capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("line")])
        await kit.until(
            lambda: work.batches.get(kit.principal, batch_id), lambda b: b.status == "in_progress"
        )
        ids = [
            await house.submit(work, str(priority), priority=priority) for priority in (-5, 0, 5)
        ]
        house.replicas_of(served, 1)
        for invocation_id in ids:
            await house.finished(work, invocation_id)
        await house.ended(work, batch_id)
        shown = await work.invocations.get(kit.principal, ids[0])
    assert house.replicas.asked == ["5", "0", "-5", "line"]
    assert shown.priority == -5


async def test_what_waits_past_its_deadline_expires(house, kit):
    await house.deploy(capacity=0)
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work, deadline_s=0.05))
    assert (done.status, done.attempt) == ("expired", 0)


async def test_what_runs_past_its_deadline_fails_and_frees_its_replica(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        for deadline_s in (1, 10, 50):  # until it began in time
            invocation_id = await house.submit(work, deadline_s=deadline_s)
            done = await house.finished(work, invocation_id)
            if done.status != "expired":
                break
        with pytest.raises(DeadlinePassed):
            await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.error.code) == ("failed", "deadline")
    assert house.replicas.hung_up == ["hi"]


async def test_a_run_limit_before_the_deadline_is_told_as_such(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work, timeout_s=0.1, deadline_s=60))
    assert done.error.code == "timeout"


async def test_a_request_has_as_many_attempts_as_it_asked_for(house, kit, failing):
    await house.deploy()
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work, max_attempts=2))
    assert (done.status, done.attempt, done.max_attempts) == ("dead", 2, 2)


# --- what each attempt ended with -----------------------------------------------------------------


async def test_the_cause_of_each_attempt_is_kept_with_its_replica(house, kit):
    await house.deploy()
    answers = [kit.refused(500, "first"), kit.refused(503, "second"), kit.said("at last")]
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0, answers.pop(0))
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work))
    assert [(each.attempt, each.replica_id) for each in done.attempts] == [
        (1, "rep_m"),
        (2, "rep_m"),
        (3, "rep_m"),
    ]
    causes = [each.error.code if each.error else None for each in done.attempts]
    assert causes == ["first", "second", None]
    assert all(each.started_at <= each.ended_at for each in done.attempts)


async def test_an_attempt_whose_worker_was_lost_says_so(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await house.db.write(
            lambda s: claims.claim(
                s, served.deployment_id, "gone", house.clock.now(), alone=1, lines=1
            )
        )
        lost = await kit.until(
            lambda: work.invocations.get(kit.principal, invocation_id), lambda one: one.attempts
        )
        house.replicas_of(served, 1)
        done = await house.finished(work, invocation_id)
    assert [each.error.code for each in lost.attempts] == ["worker_lost"]
    assert (done.status, done.attempt, len(done.attempts)) == ("succeeded", 2, 2)


# --- redrive --------------------------------------------------------------------------------------


async def test_a_dead_invocation_runs_again_with_all_its_attempts(house, kit, failing):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await dead(house, work)
        failing.set()
        again = await work.invocations.redrive(kit.principal, invocation_id)
        assert (again.status, again.finished_at) in (("queued", None), ("running", None))
        done = await house.finished(work, invocation_id)
        result = await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.attempt, len(done.attempts)) == ("succeeded", 1, 2)
    assert json.loads(result)["text"] == "hi"
    assert len(house.book.records) == 1


async def test_redriving_twice_is_redriving_once(house, kit, failing):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await dead(house, work)
    asked = len(house.replicas.asked)
    quiet = house.work()
    tries = [quiet.invocations.redrive(kit.principal, invocation_id) for _ in range(5)]
    assert {one.status for one in await asyncio.gather(*tries)} == {"queued"}
    failing.set()
    async with house.working() as work:
        await house.finished(work, invocation_id)
    assert len(house.replicas.asked) == asked + 1


async def test_a_redriven_one_has_as_much_time_as_at_first(house, kit, failing):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await dead(house, work, expires_in_s=50, deadline_s=100)
    before = await work.invocations.get(kit.principal, invocation_id)
    house.clock.ahead += timedelta(seconds=1000)
    again = await house.work().invocations.redrive(kit.principal, invocation_id)
    assert again.expires_at - before.expires_at == pytest.approx(1000, abs=5)
    assert again.deadline_at - before.deadline_at == pytest.approx(1000, abs=5)


async def test_what_did_not_fail_cannot_be_redriven(house, kit):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await house.finished(work, invocation_id)
        with pytest.raises(Conflict, match="succeeded") as refused:
            await work.invocations.redrive(kit.principal, invocation_id)
        with pytest.raises(NotFound):
            await work.invocations.redrive(kit.stranger, invocation_id)
    assert refused.value.code == "not_redrivable"


async def test_what_is_past_its_retention_cannot_be_redriven(house, kit, failing):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await dead(house, work)
        house.clock.ahead += timedelta(days=7)
        with pytest.raises(Gone):
            await work.invocations.redrive(kit.principal, invocation_id)


async def test_a_redriven_one_runs_on_the_deployment_that_has_its_name_now(house, kit, failing):
    served = await house.deploy()
    async with house.working() as work:
        invocation_id = await dead(house, work)
        await house.delete(served)
        with pytest.raises(NotFound):
            await work.invocations.redrive(kit.principal, invocation_id)


async def test_many_are_redriven_page_by_page_as_the_filter_says(house, kit, failing):
    await house.deploy()
    await house.deploy("other")
    async with house.working() as work:
        ids = [await dead(house, work, str(number)) for number in range(5)]
        await dead(house, work, model="other")
    quiet, after, redriven = house.work(), None, 0
    for expected in (2, 2, 1):
        wanted = RedriveRequest(model="m", limit=2, after=after)
        page = await quiet.invocations.redrive_many(kit.principal, wanted)
        assert (page.redriven, page.skipped, page.has_more) == (expected, 0, expected == 2)
        after, redriven = page.last_id, redriven + page.redriven
    found = await quiet.invocations.list(kit.principal, after=None, limit=50)
    assert {one.id for one in found.data if one.status == "queued"} == set(ids)
    again = await quiet.invocations.redrive_many(kit.principal, RedriveRequest(model="m"))
    assert again.redriven == 0


# --- cancelling, at every instant -----------------------------------------------------------------


@pytest.mark.parametrize(
    "steps", [pytest.param(n, marks=[pytest.mark.soak] if n % 2 else []) for n in range(40)]
)
async def test_a_cancellation_at_any_instant_leaves_one_end_and_no_slot_taken(house, kit, steps):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.002, kit.said(prompt))
    async with house.working() as work:
        invocation_id = await house.submit(work, "x" * 2000)
        for _ in range(steps):
            await asyncio.sleep(0.001)
        await work.invocations.cancel(kit.principal, invocation_id)
        done = await house.finished(work, invocation_id)
        if done.status == "succeeded":
            await work.invocations.result(kit.principal, invocation_id)
        else:
            assert done.status == "canceled"
            assert not await house.objects.exists(f"prj_1/results/{invocation_id}/1")
        await asyncio.sleep(0.01)
        assert await work.invocations.get(kit.principal, invocation_id) == done
        assert house.endpoints.demand("dep_m").in_flight == 0
