"""Invocations, from their submission to their result."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from tidegate.protocol.replica import Priority
from tidegate.protocol.work import InvocationState
from tidegate.spec import Mode, Task
from tidegate_controlplane.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    Gone,
    NotFound,
    UnprocessableKey,
    UpstreamFailed,
)
from tidegate_controlplane.store import backlog, claims
from tidegate_controlplane.work.invocations import Terms
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.worker import Worker


async def test_the_result_of_an_invocation_is_the_replicas_answer(house, kit):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await house.submit(work, "hi")
        done = await house.finished(work, invocation_id)
        assert (done.status, done.attempt, done.error) == ("succeeded", 1, None)
        result = await work.invocations.result(kit.principal, invocation_id)
    assert json.loads(result)["text"] == "echo hi"
    assert house.book.records == [("prj_1", "m", "key_1", 2, 3)]
    assert house.replicas.priorities == {Priority.ASYNC}


async def test_an_invocation_waits_in_the_queue_until_a_replica_is_ready(house, kit):
    served = await house.deploy(mode=Mode.ASYNC, capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await asyncio.sleep(0.1)
        waiting = await work.invocations.get(kit.principal, invocation_id)
        assert (waiting.status, waiting.attempt) == ("queued", 0)
        house.replicas_of(served, 1)
        assert (await house.finished(work, invocation_id)).attempt == 1


async def test_the_backlog_counts_what_waits_and_what_runs_and_how_old_it_is(house, kit):
    served = await house.deploy(capacity=1)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        for _ in range(3):
            await house.submit(work)
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), bool)
        house.clock.ahead += timedelta(seconds=90)
        found = await house.db.read(lambda s: backlog.backlog(s, house.clock.now()))
    seen = found[served.deployment_id]
    assert (seen.queued, seen.running) == (2, 1)
    assert 90 <= seen.oldest_s < 100
    assert seen.queued_tokens > 2 * 256


async def test_large_bodies_and_results_are_kept_in_the_object_store(house, kit):
    await house.deploy()
    async with house.working() as work:
        prompt = "x" * 5000
        invocation_id = await house.submit(work, prompt)
        await house.finished(work, invocation_id)
        result = await work.invocations.result(kit.principal, invocation_id)
    assert json.loads(result)["text"] == f"echo {prompt}"
    assert await house.objects.exists(f"prj_1/requests/{invocation_id}")
    assert await house.objects.exists(f"prj_1/results/{invocation_id}/1")


async def test_a_submission_that_cannot_be_inserted_leaves_no_object_behind(house, kit):
    served = await house.deploy()
    nobody = replace(kit.principal, project_id="prj_absent")
    house.catalog.put(replace(served, project_id="prj_absent"))
    with pytest.raises(IntegrityError):
        await house.work().invocations.submit(nobody, kit.chat_bytes("x" * 5000), Terms())
    assert [path for path in house.settings.objects_dir.rglob("*") if path.is_file()] == []


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        (b"not json", BadRequest, "invalid_json"),
        (b"{}", BadRequest, "missing_parameter"),
        (b'{"model": "absent", "prompt": "hi"}', NotFound, "model_not_found"),
        (b'{"model": "job", "prompt": "hi"}', BadRequest, "wrong_mode"),
        (b'{"model": "vectors", "prompt": "hi"}', BadRequest, "wrong_task"),
        (b'{"model": "m", "prompt": "hi", "stream": true}', BadRequest, "unsupported_value"),
    ],
)
async def test_a_request_that_cannot_run_is_refused_before_anything_is_kept(
    house, kit, body, error, code
):
    await house.deploy()
    await house.deploy("job", Mode.BATCH)
    await house.deploy("vectors", task=Task.EMBED)
    work = house.work()
    with pytest.raises(error) as refused:
        await work.invocations.submit(kit.principal, body, Terms())
    assert refused.value.code == code
    assert (await work.invocations.list(kit.principal, after=None, limit=5)).data == []


async def test_a_run_limit_beyond_the_platforms_is_refused(house, kit):
    await house.deploy()
    with pytest.raises(BadRequest, match="timeout_s: at most 3600"):
        await house.submit(house.work(), timeout_s=3601)


async def test_another_project_sees_nothing(house, kit):
    await house.deploy()
    work = house.work()
    invocation_id = await house.submit(work)
    for look in (work.invocations.get, work.invocations.result, work.invocations.cancel):
        with pytest.raises(NotFound):
            await look(kit.stranger, invocation_id)
    assert (await work.invocations.list(kit.stranger, after=None, limit=5)).data == []


async def test_the_list_is_newest_first_and_goes_on_after_its_cursor(house, kit):
    await house.deploy(capacity=0)
    work = house.work()
    ids = sorted([await house.submit(work) for _ in range(5)], reverse=True)
    first = await work.invocations.list(kit.principal, after=None, limit=3)
    rest = await work.invocations.list(kit.principal, after=first.last_id, limit=3)
    assert [one.id for one in first.data + rest.data] == ids
    assert (first.has_more, rest.has_more) == (True, False)
    queued = await work.invocations.list(
        kit.principal, after=None, limit=9, status=InvocationState.SUCCEEDED, model="m"
    )
    assert queued.data == []
    with pytest.raises(BadRequest, match="after"):
        await work.invocations.list(kit.principal, after="page two", limit=3)


# --- idempotency ----------------------------------------------------------------------------------


async def test_the_same_key_and_body_are_the_same_invocation(house, kit):
    await house.deploy()
    work = house.work()
    terms = Terms(idempotency_key="k")
    tries = [work.invocations.submit(kit.principal, kit.chat_bytes("x"), terms) for _ in range(8)]
    found = await asyncio.gather(*tries)
    assert len({invocation.id for invocation, _ in found}) == 1
    assert sorted(created for _, created in found) == [False] * 7 + [True]


async def test_the_same_key_with_another_body_is_refused(house, kit):
    await house.deploy()
    work = house.work()
    await house.submit(work, "one", idempotency_key="k")
    with pytest.raises(UnprocessableKey, match="'k' was used with another body"):
        await house.submit(work, "two", idempotency_key="k")


async def test_a_key_is_answered_for_even_when_its_deployment_is_gone(house, kit):
    served = await house.deploy()
    work = house.work()
    first = await house.submit(work, idempotency_key="k")
    await house.delete(served)
    assert await house.submit(work, idempotency_key="k") == first


async def test_a_key_may_be_used_anew_after_a_day(house, kit):
    await house.deploy()
    work = house.work()
    first = await house.submit(work, "one", idempotency_key="k")
    house.clock.ahead += timedelta(hours=24)
    assert await house.submit(work, "two", idempotency_key="k") != first


async def test_keys_of_different_projects_do_not_meet(house, kit):
    await house.deploy()
    work = house.work()
    await house.submit(work, "one", idempotency_key="k")
    with pytest.raises(NotFound):  # the stranger has no such deployment, not a reused key
        await work.invocations.submit(
            kit.stranger, kit.chat_bytes("two"), Terms(idempotency_key="k")
        )


# --- how runs end ---------------------------------------------------------------------------------


async def test_a_failing_replica_is_tried_again_until_it_answers(house, kit):
    await house.deploy()
    answers = [kit.refused(500), UpstreamFailed("gone"), kit.said("at last")]

    async def behave(prompt):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    house.replicas.behaviour = behave
    async with house.working() as work:
        done = await house.finished(work, await house.submit(work))
    assert (done.status, done.attempt, done.error) == ("succeeded", 3, None)


async def test_after_the_last_attempt_it_is_dead_and_the_cause_is_kept(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0, kit.refused(500, "out_of_memory"))
    async with house.working() as work:
        invocation_id = await house.submit(work)
        done = await house.finished(work, invocation_id)
        with pytest.raises(UpstreamFailed, match="out_of_memory"):
            await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.attempt, done.error.code) == ("dead", 3, "out_of_memory")
    assert len(house.replicas.asked) == 3


async def test_a_request_at_fault_fails_at_once_with_the_replicas_words(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(
        0, kit.refused(400, "context_length_exceeded")
    )
    async with house.working() as work:
        invocation_id = await house.submit(work)
        done = await house.finished(work, invocation_id)
        with pytest.raises(BadRequest) as refused:
            await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.attempt) == ("failed", 1)
    assert refused.value.code == "context_length_exceeded"


async def test_a_run_that_takes_too_long_fails_and_frees_its_replica(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        invocation_id = await house.submit(work, timeout_s=0.5)
        done = await house.finished(work, invocation_id)
        with pytest.raises(DeadlinePassed):
            await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.attempt, done.error.code) == ("failed", 1, "timeout")
    assert house.replicas.hung_up == ["hi"]


async def test_losing_the_replica_before_it_was_asked_is_no_attempt(house, kit):
    served = await house.deploy()
    work = house.work()
    invocation_id = await house.submit(work)
    [claimed] = await house.db.write(
        lambda s: claims.claim(s, served.deployment_id, "me", house.clock.now(), alone=1, lines=1)
    )
    house.replicas_of(served, 0)
    worker = Worker(house.plane(), Notices())
    worker.start(claimed, served)
    await worker.drain(5)
    waiting = await work.invocations.get(kit.principal, invocation_id)
    assert (waiting.status, waiting.attempt) == ("queued", 0)
    assert house.replicas.asked == []


async def test_what_is_not_begun_in_time_expires(house, kit):
    await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work, expires_in_s=0.05)
        done = await house.finished(work, invocation_id)
        with pytest.raises(DeadlinePassed, match="expired"):
            await work.invocations.result(kit.principal, invocation_id)
    assert done.status == "expired"


async def test_what_waits_for_a_deleted_deployment_fails(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await house.delete(served)
        done = await house.finished(work, invocation_id)
        with pytest.raises(NotFound):
            await work.invocations.result(kit.principal, invocation_id)
    assert (done.status, done.error.code) == ("failed", "deployment_deleted")


async def test_a_deployment_missing_from_memory_but_alive_in_the_database_fails_nothing(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        house.catalog.remove("prj_1", "m")
        await asyncio.sleep(0.1)
        assert (await work.invocations.get(kit.principal, invocation_id)).status == "queued"
        house.catalog.put(served)
        house.replicas_of(served, 1)
        assert (await house.finished(work, invocation_id)).status == "succeeded"


# --- results --------------------------------------------------------------------------------------


async def test_a_result_is_not_there_before_it_is_finished(house, kit):
    await house.deploy(capacity=0)
    work = house.work()
    invocation_id = await house.submit(work)
    with pytest.raises(Conflict) as refused:
        await work.invocations.result(kit.principal, invocation_id)
    assert refused.value.code == "not_finished" and refused.value.retry_after_s


async def test_a_result_is_gone_after_its_retention(house, kit):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await house.finished(work, invocation_id)
        house.clock.ahead += timedelta(days=7)
        with pytest.raises(Gone):
            await work.invocations.result(kit.principal, invocation_id)


async def test_waiting_ends_with_the_result_or_with_patience(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        assert (await work.invocations.wait(kit.principal, invocation_id, 0.05)).status == "queued"
        waiting = asyncio.create_task(work.invocations.wait(kit.principal, invocation_id, 30))
        await asyncio.sleep(0.05)
        house.replicas_of(served, 1)
        assert (await waiting).status == "succeeded"


async def test_nobody_waits_longer_than_the_process_lives(house, kit):
    await house.deploy(capacity=0)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        waiting = asyncio.create_task(work.invocations.wait(kit.principal, invocation_id, 600))
        await asyncio.sleep(0.05)
    assert (await asyncio.wait_for(waiting, 60)).status == "queued"


# --- cancelling -----------------------------------------------------------------------------------


async def test_cancelling_what_is_queued_takes_it_off_the_queue(house, kit):
    await house.deploy(capacity=0)
    work = house.work()
    invocation_id = await house.submit(work)
    assert (await work.invocations.cancel(kit.principal, invocation_id)).status == "canceled"
    with pytest.raises(Conflict, match="canceled"):
        await work.invocations.result(kit.principal, invocation_id)


async def test_cancelling_what_runs_hangs_up_on_the_replica(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        invocation_id = await house.submit(work)
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), bool)
        assert (await work.invocations.cancel(kit.principal, invocation_id)).status == "canceled"
    assert house.replicas.hung_up == ["hi"]
    assert house.endpoints.demand("dep_m").in_flight == 0


async def test_cancelling_what_is_finished_changes_nothing(house, kit):
    await house.deploy()
    async with house.working() as work:
        invocation_id = await house.submit(work)
        done = await house.finished(work, invocation_id)
        assert await work.invocations.cancel(kit.principal, invocation_id) == done


# --- sharing replicas -----------------------------------------------------------------------------


async def test_no_more_runs_at_once_than_the_replicas_have_room_for(house, kit):
    served = await house.deploy(capacity=0)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.05, kit.said(prompt))
    async with house.working() as work:
        ids = [await house.submit(work, str(number)) for number in range(12)]
        house.replicas_of(served, 3)
        for invocation_id in ids:
            await house.finished(work, invocation_id)
    assert house.replicas.most_at_once == 3
    assert sorted(house.replicas.asked, key=int) == [str(number) for number in range(12)]


async def test_a_replica_that_is_partly_busy_is_filled_up(house, kit):
    await house.deploy(capacity=4)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(60)
    async with house.working() as work:
        for number in range(1, 7):
            await house.submit(work, str(number))
            await kit.until(
                lambda: asyncio.sleep(0, house.replicas.asked),
                lambda asked, number=number: len(asked) == min(number, 4),
            )
    assert house.replicas.most_at_once == 4


async def test_invocations_run_before_the_lines_of_batches(house, kit):
    served = await house.deploy(mode=Mode.ASYNC, capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("batch")])
        await kit.until(
            lambda: work.batches.get(kit.principal, batch_id), lambda b: b.status == "in_progress"
        )
        later = await house.submit(work, "alone")
        house.replicas_of(served, 1)
        await house.finished(work, later)
        await house.ended(work, batch_id)
    assert house.replicas.asked == ["alone", "batch"]


async def test_lines_of_batches_leave_room_for_those_who_wait(house, kit):
    await house.deploy(mode=Mode.REALTIME, capacity=4)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.05, kit.said(prompt))
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(str(number)) for number in range(12)])
        await house.ended(work, batch_id)
    assert house.replicas.most_at_once == 3
