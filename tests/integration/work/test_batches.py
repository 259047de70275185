"""Batches, from their file to their files."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from pydantic import ValidationError

from tidegate.protocol.replica import Priority
from tidegate.protocol.work import BatchRequest
from tidegate.spec import Mode, Task
from tidegate_controlplane.errors import BadRequest, Conflict, NotFound
from tidegate_controlplane.store.files import Page
from tidegate_controlplane.store.tables import Batch
from tidegate_controlplane.work.batch_runner import BatchRunner
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.worker import Worker

CHAT = "/v1/chat/completions"


async def in_progress(house, kit, work, batch_id):
    return await kit.until(
        lambda: work.batches.get(kit.principal, batch_id), lambda b: b.status == "in_progress"
    )


async def test_a_batch_answers_each_custom_id_once_in_the_order_of_its_file(house, kit):
    await house.deploy(mode=Mode.BATCH)
    names = [f"line-{number}" for number in range(25)]
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(name) for name in names])
        done = await house.ended(work, batch_id)
        output = await house.lines_of(work, done.output_file_id)
    assert (done.status, done.model, done.error_file_id) == ("completed", "m", None)
    assert done.request_counts.model_dump() == {"total": 25, "completed": 25, "failed": 0}
    assert [line["custom_id"] for line in output] == names
    assert sorted(house.replicas.asked) == sorted(names)
    assert house.replicas.priorities == {Priority.BATCH}
    first = output[0]
    assert set(first) == {"id", "custom_id", "response", "error"} and first["error"] is None
    assert first["response"]["status_code"] == 200
    assert first["response"]["body"]["text"] == "echo line-0"
    assert len({line["id"] for line in output}) == 25
    moments = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert moments == sorted(moments) and done.expires_at == done.created_at + 86_400


async def test_a_line_that_is_not_json_fails_and_the_rest_run(house, kit):
    await house.deploy()
    lines = [kit.line("a"), b"this is not json", b"", kit.line("b"), kit.line("c", url="/v1/x")]
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, lines))
        output = await house.lines_of(work, done.output_file_id)
        errors = await house.lines_of(work, done.error_file_id)
    assert done.status == "completed"
    assert done.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
    assert [line["custom_id"] for line in output] == ["a", "b"]
    assert [line["custom_id"] for line in errors] == [None, "c"]
    assert [line["response"] for line in errors] == [None, None]
    assert errors[0]["error"]["code"] == "invalid_json_line"
    assert errors[0]["error"]["message"].startswith("line 2: ")
    assert errors[1]["error"]["param"] == "url"


async def test_a_line_that_the_replica_refuses_or_fails_keeps_its_status(house, kit):
    await house.deploy()

    async def behave(prompt):
        if prompt == "good":
            return kit.said(prompt)
        return kit.refused(400, "too_long") if prompt == "bad" else kit.refused(503, "broken")

    house.replicas.behaviour = behave
    lines = [kit.line("bad"), kit.line("good"), kit.line("dead")]
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, lines))
        errors = await house.lines_of(work, done.error_file_id)
    assert done.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 2}
    answers = {line["custom_id"]: line["response"] for line in errors}
    assert answers["bad"]["status_code"] == 400
    assert answers["bad"]["body"]["error"]["code"] == "too_long"
    assert answers["dead"]["status_code"] == 503
    assert house.replicas.asked.count("dead") == 3


async def test_lines_may_name_different_models(house, kit):
    await house.deploy("m")
    await house.deploy("other", Mode.SERVERLESS)
    body = {"model": "other", "messages": [{"role": "user", "content": "b"}]}
    async with house.working() as work:
        lines = [kit.line("a"), kit.line("b", body=body)]
        done = await house.ended(work, await house.batch(work, lines))
    assert (done.status, done.model, done.request_counts.completed) == ("completed", None, 2)


async def test_large_lines_and_answers_pass_through_the_object_store(house, kit):
    await house.deploy()
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 5000}]}
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, [kit.line("a", body=body)]))
        [line] = await house.lines_of(work, done.output_file_id)
    assert line["response"]["body"]["text"] == "echo " + "x" * 5000


# --- files that cannot be run ---------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[], [b"", b"  "]], ids=["nothing", "blank lines"])
async def test_an_empty_file_fails_the_batch(house, kit, lines):
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, lines))
    assert (done.status, done.output_file_id, done.error_file_id) == ("failed", None, None)
    assert [error.code for error in done.errors.data] == ["empty_file"]


async def test_a_duplicate_custom_id_fails_the_batch_before_anything_runs(house, kit):
    await house.deploy()
    async with house.working() as work:
        lines = [kit.line("a"), kit.line("b"), kit.line("c"), b"", kit.line("a")]
        done = await house.ended(work, await house.batch(work, lines))
    [error] = done.errors.data
    assert (done.status, error.code, error.line) == ("failed", "duplicate_custom_id", 5)
    assert "lines 1 and 5" in error.message and "'a'" in error.message
    assert done.request_counts.total == 0 and house.replicas.asked == []


async def test_a_file_whose_bytes_are_gone_fails_the_batch(house, kit):
    await house.deploy()
    async with house.working() as work:
        file_id = await house.upload(work, b"{}\n")
        await house.objects.delete(f"prj_1/files/{file_id}")
        wanted = BatchRequest(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
        batch = await work.batches.create(kit.principal, wanted)
        done = await house.ended(work, batch.id)
    assert [error.code for error in done.errors.data] == ["input_file_missing"]


@pytest.mark.parametrize("file_id", ["file_absent", "file_of_another", "file_output"])
async def test_a_batch_needs_an_input_file_of_its_own_project(house, kit, file_id):
    work = house.work()
    if file_id == "file_of_another":
        file_id = (await work.files.create(kit.stranger, kit.form(b"{}\n"))).id
    if file_id == "file_output":
        await house.deploy()
        async with house.working() as work:
            done = await house.ended(work, await house.batch(work, [kit.line("a")]))
        file_id = done.output_file_id
    wanted = BatchRequest(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(BadRequest) as refused:
        await work.batches.create(kit.principal, wanted)
    assert refused.value.param == "input_file_id"


# --- terms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "hours"), [("1h", 1), ("24h", 24), ("168h", 168), ("7d", 168)])
async def test_a_batch_may_have_another_window(house, kit, window, hours):
    work = house.work()
    file_id = await house.upload(work, b"{}\n")
    wanted = BatchRequest(input_file_id=file_id, endpoint=CHAT, completion_window=window)
    batch = await work.batches.create(kit.principal, wanted)
    assert batch.completion_window == window
    assert batch.expires_at - batch.created_at == hours * 3600


@pytest.mark.parametrize("window", ["0h", "169h", "8d", "90m", "1w", "h", "", "-1h", "24H", "1.5h"])
def test_a_window_that_is_not_whole_hours_or_days_up_to_a_week_is_refused(window):
    with pytest.raises(ValidationError) as refused:
        BatchRequest(input_file_id="file_1", endpoint=CHAT, completion_window=window)
    assert refused.value.errors()[0]["loc"] == ("completion_window",)


@pytest.mark.parametrize(
    "metadata",
    [{str(n): "" for n in range(17)}, {"k" * 65: ""}, {"k": "v" * 513}],
    ids=["pairs", "key", "value"],
)
def test_metadata_is_sixteen_pairs_of_64_and_512_characters(metadata):
    most = {str(n).zfill(64): "v" * 512 for n in range(16)}
    BatchRequest(input_file_id="file_1", endpoint=CHAT, completion_window="24h", metadata=most)
    with pytest.raises(ValidationError):
        BatchRequest(
            input_file_id="file_1", endpoint=CHAT, completion_window="24h", metadata=metadata
        )


async def test_output_files_expire_when_they_were_told_to(house, kit):
    await house.deploy()
    async with house.working() as work:
        file_id = await house.upload(work, b"junk\n" + json.dumps(kit.line("a")).encode())
        wanted = BatchRequest(
            input_file_id=file_id,
            endpoint=CHAT,
            completion_window="24h",
            output_expires_after={"anchor": "created_at", "seconds": 3600},
        )
        done = await house.ended(work, (await work.batches.create(kit.principal, wanted)).id)
        for file_id in (done.output_file_id, done.error_file_id):
            file = await work.files.get(kit.principal, file_id)
            assert file.expires_at == file.created_at + 3600


# --- ending early ---------------------------------------------------------------------------------


async def test_cancelling_keeps_what_is_finished_and_tells_of_the_rest(house, kit):
    await house.deploy(mode=Mode.BATCH, capacity=2)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(
        0 if prompt in "ab" else 60, kit.said(prompt)
    )
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(name) for name in "abcdefg"])
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), lambda n: len(n) == 4)
        await in_progress(house, kit, work, batch_id)  # its first lines run before that
        assert (await work.batches.cancel(kit.principal, batch_id)).status == "cancelling"
        done = await house.ended(work, batch_id)
        output = await house.lines_of(work, done.output_file_id)
        errors = await house.lines_of(work, done.error_file_id)
        assert await work.batches.cancel(kit.principal, batch_id) == done
    assert done.status == "cancelled" and done.cancelling_at and done.cancelled_at
    assert [line["custom_id"] for line in output] == ["a", "b"]
    assert [line["custom_id"] for line in errors] == list("cdefg")
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert sorted(house.replicas.hung_up) == ["c", "d"]
    assert house.endpoints.demand("dep_m").in_flight == 0


async def test_a_batch_that_is_cancelled_while_it_is_read_runs_nothing(house, kit):
    await house.deploy()
    idle = house.work()
    batch_id = await house.batch(idle, [kit.line("a")])
    await idle.batches.cancel(kit.principal, batch_id)
    async with house.working() as work:
        done = await house.ended(work, batch_id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)
    assert house.replicas.asked == []


async def test_after_the_completion_window_what_is_finished_is_kept_and_the_rest_expires(
    house, kit
):
    await house.deploy(mode=Mode.BATCH, capacity=1)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(
        0 if prompt == "a" else 60, kit.said(prompt)
    )
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(name) for name in "abc"])
        await kit.until(lambda: asyncio.sleep(0, house.replicas.asked), lambda n: len(n) == 2)
        await in_progress(house, kit, work, batch_id)  # its first lines run before that
        house.clock.ahead += timedelta(hours=24)
        done = await house.ended(work, batch_id)
        output = await house.lines_of(work, done.output_file_id)
        errors = await house.lines_of(work, done.error_file_id)
    assert done.status == "expired" and done.expired_at
    assert [line["custom_id"] for line in output] == ["a"]
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [
        ("b", "batch_expired"),
        ("c", "batch_expired"),
    ]


async def test_lines_for_a_deployment_that_is_deleted_fail_and_the_batch_completes(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a"), kit.line("b")])
        await in_progress(house, kit, work, batch_id)
        await house.delete(served)
        done = await house.ended(work, batch_id)
        errors = await house.lines_of(work, done.error_file_id)
    assert done.status == "completed"
    assert [line["error"]["code"] for line in errors] == ["deployment_deleted"] * 2


async def test_a_step_that_was_overtaken_names_no_files(house, kit):
    await house.deploy()
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a")])
        await house.ended(work, batch_id)
    before = await work.files.list(kit.principal, Page(limit=9))
    overtaken = await house.db.read(lambda session: session.get(Batch, batch_id))
    overtaken.status, overtaken.version = "finalizing", overtaken.version - 1
    plane = house.plane()
    await BatchRunner(plane, house.catalog, Worker(plane, Notices())).step(overtaken)
    assert await work.files.list(kit.principal, Page(limit=9)) == before
    assert (await work.batches.get(kit.principal, batch_id)).status == "completed"


async def test_a_batch_that_one_process_began_another_finishes(house, kit):
    await house.deploy(mode=Mode.BATCH, capacity=2)
    names = [f"line-{number}" for number in range(8)]
    house.replicas.behaviour = lambda prompt: asyncio.sleep(
        0 if prompt in names[:3] else 60, kit.said(prompt)
    )
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line(name) for name in names])
        await kit.until(
            lambda: work.batches.get(kit.principal, batch_id),
            lambda b: b.request_counts.completed == 3,
        )
    house.replicas.behaviour = None
    async with house.working() as other:
        done = await house.ended(other, batch_id)
        output = await house.lines_of(other, done.output_file_id)
    assert [line["custom_id"] for line in output] == names
    assert all(house.replicas.asked.count(name) == 1 for name in names[:3])
    assert len(house.replicas.asked) <= len(names) + 2


async def test_two_processes_share_the_lines_of_a_batch(house, kit):
    await house.deploy(mode=Mode.BATCH, capacity=2)
    names = [f"line-{number}" for number in range(12)]
    idle = house.work()
    batch_id = await house.batch(idle, [kit.line(name) for name in names])
    async with house.working(group_lines=100) as one, house.working(group_lines=100) as two:
        done = await house.ended(one, batch_id)
        output = await house.lines_of(two, done.output_file_id)
    assert (done.status, done.request_counts.completed) == ("completed", 12)
    assert [line["custom_id"] for line in output] == names
    assert sorted(house.replicas.asked) == sorted(names)


# --- looking --------------------------------------------------------------------------------------


async def test_lines_are_not_listed_as_invocations(house, kit):
    await house.deploy()
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, [kit.line("a")]))
        [line] = await house.lines_of(work, done.output_file_id)
        assert (await work.invocations.list(kit.principal, after=None, limit=5)).data == []
        with pytest.raises(NotFound):
            await work.invocations.get(kit.principal, line["id"])


async def test_another_project_sees_no_batch(house, kit):
    await house.deploy()
    work = house.work()
    batch_id = await house.batch(work, [kit.line("a")])
    for look in (work.batches.get, work.batches.cancel):
        with pytest.raises(NotFound):
            await look(kit.stranger, batch_id)
    assert (await work.batches.list(kit.stranger, after=None, limit=5)).data == []


async def test_the_list_of_batches_goes_on_after_its_cursor(house, kit):
    work = house.work()
    ids = sorted([await house.batch(work, [b"{}"]) for _ in range(3)], reverse=True)
    first = await work.batches.list(kit.principal, after=None, limit=2)
    rest = await work.batches.list(kit.principal, after=first.last_id, limit=2)
    assert [one.id for one in first.data + rest.data] == ids
    assert (first.has_more, rest.has_more) == (True, False)


async def test_a_file_that_an_unfinished_batch_reads_cannot_be_deleted(house, kit):
    await house.deploy(capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a")])
        file_id = (await work.batches.get(kit.principal, batch_id)).input_file_id
        with pytest.raises(Conflict, match=batch_id):
            await work.files.delete(kit.principal, file_id)
        await work.batches.cancel(kit.principal, batch_id)
        await house.ended(work, batch_id)
        assert (await work.files.delete(kit.principal, file_id)).deleted


async def test_embeddings_have_a_batch_of_their_own_endpoint(house, kit):
    await house.deploy("vectors", task=Task.EMBED, capacity=0)
    async with house.working() as work:
        batch_id = await house.batch(work, [kit.line("a", body={"model": "vectors", "input": "x"})])
        done = await house.ended(work, batch_id)
        [error] = await house.lines_of(work, done.error_file_id)
    assert error["error"]["param"] == "messages"
