"""The routes of durable work, over HTTP, also as the unmodified `openai` client calls them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.store.tables import DEFAULT_PROJECT
from tidegate_controlplane.work.routes import HANDLERS


@pytest.fixture
async def http(house):
    """A client of the application, with a key; the work behind it runs."""
    keys = KeyService(house.db, load_pepper(house.settings.pepper_path), house.clock)
    key = await keys.ensure_first()
    missing: Any = None
    async with house.working() as work:
        services = Services(
            settings=house.settings,
            clock=house.clock,
            database=house.db,
            endpoints=house.endpoints,
            catalog=house.catalog,
            keys=keys,
            quotas=Quotas(house.clock),
            usage=missing,
            watch=Watch(Metrics(), house.clock),
            forwarder=missing,
            profiler=missing,
            deployments=missing,
            offers=missing,
            files=work.files,
            batches=work.batches,
            invocations=work.invocations,
            webhooks=missing,
            rotation=work.rotation,
            ready=asyncio.Event(),
        )
        transport = httpx.ASGITransport(app=build_app(services, HANDLERS))
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://platform",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            yield client


@pytest.fixture
async def sdk(http):
    return openai.AsyncOpenAI(
        api_key=http.headers["authorization"].removeprefix("Bearer "),
        base_url="http://platform/v1",
        http_client=http,
        max_retries=0,
    )


@pytest.fixture
async def deployed(house):
    return await house.deploy(project=DEFAULT_PROJECT)


@pytest.fixture
async def asleep(house):
    return await house.deploy(project=DEFAULT_PROJECT, capacity=0)


async def final(http, url):
    while (found := (await http.get(url)).json())["status"] not in (
        "succeeded",
        "failed",
        "dead",
        "canceled",
    ):
        await asyncio.sleep(0.01)
    return found


async def test_an_invocation_is_accepted_with_its_place_and_gives_its_result(http, kit, deployed):
    accepted = await http.post("/v1/invocations", content=kit.chat_bytes("hi"))
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/v1/invocations/{accepted.json()['id']}"
    found = await final(http, accepted.headers["location"])
    assert (found["status"], found["model"], found["endpoint"]) == (
        "succeeded",
        "m",
        "/v1/chat/completions",
    )
    result = await http.get(accepted.headers["location"] + "/result")
    assert (result.status_code, result.json()["text"]) == (200, "echo hi")
    assert result.headers["content-type"] == "application/json"


async def test_prefer_wait_answers_with_the_result_when_it_comes_in_time(http, kit, deployed):
    answer = await http.post(
        "/v1/invocations", content=kit.chat_bytes("hi"), headers={"prefer": "wait=20"}
    )
    assert (answer.status_code, answer.json()["text"]) == (200, "echo hi")


async def test_prefer_wait_answers_202_when_patience_ends_first(http, kit, asleep):
    answer = await http.post(
        "/v1/invocations", content=kit.chat_bytes("hi"), headers={"prefer": "wait=1"}
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


async def test_the_idempotency_key_is_a_header(http, kit, asleep):
    headers = {"idempotency-key": "k"}
    first = await http.post("/v1/invocations", content=kit.chat_bytes("hi"), headers=headers)
    again = await http.post("/v1/invocations", content=kit.chat_bytes("hi"), headers=headers)
    other = await http.post("/v1/invocations", content=kit.chat_bytes("ho"), headers=headers)
    assert first.json() == again.json()
    assert (again.status_code, other.status_code) == (202, 422)
    assert other.json()["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    "query",
    [
        "timeout_s=0",
        "timeout_s=3601",
        "timeout_s=nan",
        "expires_in_s=-1",
        "deadline_s=0",
        "priority=6",
        "priority=0.5",
        "max_attempts=0",
        "max_attempts=11",
        "urgency=1",
    ],
)
async def test_terms_out_of_bounds_are_refused_by_name(http, kit, deployed, query):
    answer = await http.post(f"/v1/invocations?{query}", content=kit.chat_bytes("hi"))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.split("=")[0]


async def test_a_result_that_is_not_there_yet_says_when_to_ask_again(http, kit, asleep):
    accepted = await http.post("/v1/invocations", content=kit.chat_bytes("hi"))
    answer = await http.get(accepted.headers["location"] + "/result")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_finished")
    assert int(answer.headers["retry-after"]) >= 1
    canceled = await http.post(accepted.headers["location"] + "/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")


async def test_a_body_that_is_too_large_is_refused(http, house, deployed):
    most = house.settings.limits.invocation_body_bytes
    answer = await http.post("/v1/invocations", content=b" " * (most + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "batch"}, "files": {"other": b"x"}}, "other"),
        ({"files": {"purpose": (None, "batch")}}, "file"),
        ({"files": {"file": b"{}"}}, "purpose"),
        ({"files": {"file": b"{}"}, "data": {"purpose": "assistants"}}, "purpose"),
        ({"json": {"purpose": "batch"}}, None),
    ],
)
async def test_an_upload_that_is_wrong_names_what_is_missing(http, form, param):
    answer = await http.post("/v1/files", **form)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_upload_that_is_announced_as_too_large_is_refused_at_once(http):
    headers = {"content-length": str(300 * 1024 * 1024), "content-type": "multipart/form-data"}
    assert (await http.post("/v1/files", headers=headers)).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/file_x",
        "/v1/files/file_x/content",
        "/v1/batches/batch_x",
        "/v1/invocations/inv_x",
        "/v1/invocations/inv_x/result",
    ],
)
async def test_what_does_not_exist_is_not_found(http, path):
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")


async def test_the_openai_client_runs_a_batch(sdk, house, kit, deployed):
    lines = b"".join(
        b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":%b}\n'
        % (number, kit.chat_bytes(str(number)))
        for number in range(3)
    )
    file = await sdk.files.create(file=("in.jsonl", lines + b"junk\n"), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(lines) + 5, "in.jsonl", "batch")
    batch = await sdk.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"for": "a test"},
    )
    while batch.status not in ("completed", "failed"):
        await asyncio.sleep(0.02)
        batch = await sdk.batches.retrieve(batch.id)
    assert (batch.status, batch.metadata) == ("completed", {"for": "a test"})
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 1)
    assert b"".join([(await sdk.files.content(batch.output_file_id)).content]).count(b"\n") == 3
    assert b"invalid_json" in (await sdk.files.content(batch.error_file_id)).content
    assert (await sdk.files.content(file.id)).content == lines + b"junk\n"
    assert [one.id async for one in sdk.batches.list(limit=1)] == [batch.id]
    names = {one.id async for one in sdk.files.list(limit=1)}
    assert names == {file.id, batch.output_file_id, batch.error_file_id}
    assert (await sdk.files.delete(file.id)).deleted


async def test_the_openai_client_finds_every_field_of_files_and_batches(
    sdk, http, house, kit, deployed
):
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%b}'
    expiry = {"anchor": "created_at", "seconds": 3600}
    first = await sdk.files.create(
        file=("in.jsonl", line % kit.chat_bytes("hi")), purpose="batch", expires_after=expiry
    )
    assert (first.expires_at, first.status) == (first.created_at + 3600, "processed")
    batch = await sdk.batches.create(
        input_file_id=first.id,
        endpoint="/v1/chat/completions",
        completion_window="1h",  # the types say 24h, the server more
        output_expires_after=expiry,
    )
    assert (batch.object, batch.errors, batch.request_counts.total) == ("batch", None, 0)
    while batch.status != "completed":
        await asyncio.sleep(0.02)
        batch = await sdk.batches.retrieve(batch.id)
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (
        2,
        3,
        5,
    )
    assert batch.usage.input_tokens_details.cached_tokens == 0
    assert batch.usage.output_tokens_details.reasoning_tokens == 0
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 3600
    output = await sdk.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.expires_at) == ("batch_output", output.created_at + 3600)
    listed = [one.id async for one in sdk.files.list(order="asc", limit=1)]
    assert listed == sorted([first.id, output.id])
    assert [one.id async for one in sdk.files.list(purpose="batch_output")] == [output.id]
    again = await http.post(f"/v1/batches/{batch.id}/retry")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_retry")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"completion_window": "8d"}, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after"),
        ({"input_file_id": None}, "input_file_id"),
        ({"input": {"uri": "s3://b/in/", "format": "csv"}}, "input_file_id"),
        ({"output": {"uri": "s3://b/out/"}}, "output"),
        (
            {"input_file_id": None, "input": {"uri": "b", "format": "csv"}, "output": {}},
            "input.uri",
        ),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"priority": 1}, "priority"),
    ],
)
async def test_a_batch_that_asks_for_what_cannot_be_is_refused_by_name(http, change, param):
    good = {"input_file_id": "f", "endpoint": "/v1/completions", "completion_window": "24h"}
    wanted = {name: value for name, value in (good | change).items() if value is not None}
    answer = await http.post("/v1/batches", json=wanted)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)


async def test_tables_are_asked_for_over_http_and_need_an_allowed_bucket(http):
    answer = await http.post(
        "/v1/batches",
        json={
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "input": {"uri": "s3://b/in/", "format": "csv", "column": "q", "model": "m"},
            "output": {"uri": "s3://b/out/", "format": "parquet"},
        },
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bucket_not_allowed")
    assert answer.json()["error"]["param"] == "input.uri"


async def test_lines_that_failed_are_run_again_over_http(http, house, kit, deployed):
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0, kit.refused(400))
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%b}'
    form = {"files": {"file": line % kit.chat_bytes("hi")}, "data": {"purpose": "batch"}}
    file = (await http.post("/v1/files", **form)).json()
    wanted = {
        "input_file_id": file["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    batch = (await http.post("/v1/batches", json=wanted)).json()
    while (await http.get(f"/v1/batches/{batch['id']}")).json()["status"] != "completed":
        await asyncio.sleep(0.02)
    again = await http.post(f"/v1/batches/{batch['id']}/retry")
    assert (again.status_code, again.json()["retry_of"]) == (200, batch["id"])


async def test_the_openai_client_raises_its_own_errors(sdk, http, kit, asleep):
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve("file_absent")
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.batches.create(
            input_file_id="file_absent",
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )
    assert refused.value.param == "input_file_id"
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%b}'
    file = await sdk.files.create(file=("in.jsonl", line % kit.chat_bytes("hi")), purpose="batch")
    batch = await sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    with pytest.raises(openai.ConflictError):
        await sdk.files.delete(file.id)
    assert (await sdk.batches.cancel(batch.id)).status == "cancelling"


async def test_a_request_that_names_an_unknown_webhook_is_refused_by_name(http, kit, deployed):
    answer = await http.post("/v1/invocations?webhook=wh_1", content=kit.chat_bytes("hi"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook")


async def test_a_result_is_read_on_from_a_byte(http, kit, deployed):
    accepted = await http.post("/v1/invocations", content=kit.chat_bytes("hi"))
    url = accepted.headers["location"]
    await final(http, url)
    whole = await http.get(f"{url}/result")
    assert int(whole.headers["content-length"]) == len(whole.content)
    rest = await http.get(f"{url}/result", headers={"range": "bytes=5-"})
    assert (rest.status_code, rest.content) == (206, whole.content[5:])
    assert rest.headers["content-range"] == f"bytes 5-{len(whole.content) - 1}/{len(whole.content)}"
    beyond = await http.get(f"{url}/result", headers={"range": f"bytes={len(whole.content)}-"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "range_not_satisfiable")
    other = await http.get(f"{url}/result", headers={"range": "bytes=-5"})
    assert (other.status_code, other.content) == (200, whole.content)


async def test_events_are_a_stream_that_ends_with_the_final_state(http, kit, deployed):
    accepted = await http.post("/v1/invocations", content=kit.chat_bytes("hi"))
    url = accepted.headers["location"]
    stream = await http.get(f"{url}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")
    last_state = [line for line in stream.text.splitlines() if line.startswith("data: {")][-1]
    assert '"status":"succeeded"' in last_state
    last_id = [line for line in stream.text.splitlines() if line.startswith("id: ")][-1][4:]
    again = await http.get(f"{url}/events", headers={"last-event-id": last_id})
    assert again.text == "data: [DONE]\n\n"
    wrong = await http.get(f"{url}/events", headers={"last-event-id": "abc"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")
    absent = await http.get("/v1/invocations/inv_0/events")
    assert absent.status_code == 404


async def test_what_is_dead_is_redriven_alone_or_with_all_others(http, kit, house, deployed):
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0, kit.refused(500))
    url = (await http.post("/v1/invocations?max_attempts=1", content=kit.chat_bytes("hi"))).headers[
        "location"
    ]
    assert (await final(http, url))["status"] == "dead"
    many = await http.post("/v1/invocations/redrive", json={"status": "dead", "model": "m"})
    assert (many.status_code, many.json()["redriven"]) == (200, 1)
    assert (await final(http, url))["status"] == "dead"
    house.replicas.behaviour = None
    again = await http.post(f"{url}/redrive")
    assert (again.status_code, again.json()["attempts"][0]["error"]["code"]) == (200, "no")
    assert (await final(http, url))["status"] == "succeeded"
    done = await http.post(f"{url}/redrive")
    assert (done.status_code, done.json()["error"]["code"]) == (409, "not_redrivable")
    wrong = await http.post("/v1/invocations/redrive", json={"status": "canceled"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "status")


async def test_a_body_that_comes_in_pieces_is_kept_and_an_unreadable_one_is_not(
    http, kit, house, deployed
):
    async def pieces(end):
        yield b'{"model": "m", "messages": [{"role": "user", "content": "'
        for _ in range(50):
            yield b"x" * 1000
        yield end

    accepted = await http.post("/v1/invocations", content=pieces(b'"}]}'))
    assert accepted.status_code == 202
    assert (await final(http, accepted.headers["location"]))["status"] == "succeeded"
    refused = await http.post("/v1/invocations", content=pieces(b'"}], "colour": 1}'))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "colour")
    found = {path.parent.name for path in house.settings.objects_dir.rglob("*") if path.is_file()}
    assert found == {"requests", accepted.json()["id"]}


async def test_a_finished_invocation_can_be_deleted_and_one_under_way_cannot(http, house, kit):
    served = await house.deploy(capacity=0, project=DEFAULT_PROJECT)
    terms = {"result_ttl_s": 3600}
    made = await http.post("/v1/invocations", params=terms, content=kit.chat_bytes("hi"))
    path = made.headers["location"]
    assert (await http.delete(path)).status_code == 409
    house.replicas_of(served, 1)
    await kit.until(lambda: http.get(path), lambda found: found.json()["status"] == "succeeded")
    deleted = await http.delete(path)
    assert deleted.json() == {"id": made.json()["id"], "object": "invocation", "deleted": True}
    assert (await http.get(f"{path}/result")).status_code == 410
    for ttl_s in (0, 604_801):
        refused = await http.post(
            "/v1/invocations", params={"result_ttl_s": ttl_s}, content=kit.chat_bytes("hi")
        )
        assert refused.status_code == 400
