"""Running the lines again that a batch did not answer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from tidegate_controlplane.errors import BadRequest, Conflict, NotFound


async def failed_in_part(house, kit, work, lines=None):
    """A batch of which `b` and a line of junk were not answered."""
    await house.deploy()

    async def behave(prompt):
        return kit.refused(400) if prompt == "b" else kit.said(prompt)

    house.replicas.behaviour = behave
    lines = lines or [kit.line("a"), kit.line("b"), b"junk", kit.line("c")]
    done = await house.ended(work, await house.batch(work, lines))
    house.replicas.behaviour = None
    house.replicas.asked.clear()
    return done


async def test_a_retry_is_a_new_batch_of_the_lines_that_were_not_answered(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
        again = await work.batches.retry(kit.principal, former.id)
        assert (again.retry_of, again.input_file_id) == (former.id, former.input_file_id)
        done = await house.ended(work, again.id)
        output = await house.lines_of(work, done.output_file_id)
        errors = await house.lines_of(work, done.error_file_id)
        assert await work.batches.get(kit.principal, former.id) == former
    assert done.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
    assert [line["custom_id"] for line in output] == ["b"]
    assert errors[0]["error"]["message"].startswith("line 3: ")
    assert house.replicas.asked == ["b"]


async def test_lines_that_expired_are_run_again_in_a_window_of_their_own(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(name) for name in "abc"])
        await kit.until(
            lambda: work.batches.get(kit.principal, batch_id), lambda b: b.status == "in_progress"
        )
        house.clock.ahead += timedelta(hours=24)
        assert (await house.ended(work, batch_id)).status == "expired"
        house.replicas_of(served, 4)
        again = await work.batches.retry(kit.principal, batch_id)
        done = await house.ended(work, again.id)
    assert (done.status, done.request_counts.completed) == ("completed", 3)
    assert done.expires_at == done.created_at + 86_400


async def test_a_batch_is_retried_once_and_then_its_retry_is(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
        again = await work.batches.retry(kit.principal, former.id)
        with pytest.raises(Conflict, match=again.id) as refused:
            await work.batches.retry(kit.principal, former.id)
        assert refused.value.code == "already_retried"
        await house.ended(work, again.id)
        third = await house.ended(work, (await work.batches.retry(kit.principal, again.id)).id)
    assert third.request_counts.model_dump() == {"total": 1, "completed": 0, "failed": 1}


async def test_a_batch_that_is_not_finished_is_not_retried(house, kit):
    work = house.work()
    batch_id = await house.batch(work, [kit.line("a")])
    with pytest.raises(Conflict) as refused:
        await work.batches.retry(kit.principal, batch_id)
    assert refused.value.code == "not_finished"


@pytest.mark.parametrize("lines", [[b""], None], ids=["it never began", "all were answered"])
async def test_a_batch_without_an_unanswered_line_is_not_retried(house, kit, lines):
    await house.deploy()
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, lines or [kit.line("a")]))
        with pytest.raises(Conflict) as refused:
            await work.batches.retry(kit.principal, done.id)
    assert refused.value.code == "nothing_to_retry"


async def test_lines_whose_rows_are_gone_are_not_retried(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
        await house.db.write(lambda session: session.execute(text("DELETE FROM invocation")))
        with pytest.raises(Conflict):
            await work.batches.retry(kit.principal, former.id)


async def test_without_its_input_file_a_batch_is_not_retried(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
        await work.files.delete(kit.principal, former.input_file_id)
        with pytest.raises(BadRequest) as refused:
            await work.batches.retry(kit.principal, former.id)
    assert refused.value.param == "input_file_id"


async def test_another_project_retries_nothing(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
        with pytest.raises(NotFound):
            await work.batches.retry(kit.stranger, former.id)


async def test_a_retry_that_was_cancelled_before_it_began_can_be_made_anew(house, kit):
    async with house.working() as work:
        former = await failed_in_part(house, kit, work)
    idle = house.work()
    again = await idle.batches.retry(kit.principal, former.id)
    await idle.batches.cancel(kit.principal, again.id)
    async with house.working() as work:
        assert (await house.ended(work, again.id)).status == "cancelled"
        third = await house.ended(work, (await work.batches.retry(kit.principal, former.id)).id)
    assert third.request_counts.completed == 1
