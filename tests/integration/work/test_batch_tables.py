"""Batches from tables to tables, in a real S3 server."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
from datetime import timedelta
from functools import partial

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import S3_BUCKET

from tidegate.protocol.work import BatchRequest
from tidegate_controlplane.errors import BadRequest, Conflict
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.objects import bucket
from tidegate_controlplane.objects.base import StoreUnavailable
from tidegate_controlplane.objects.bucket import Bucket
from tidegate_controlplane.store import batches

CHAT = "/v1/chat/completions"


@pytest.fixture
def s3(s3_server, monkeypatch, house):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    limits = house.settings.limits.model_copy(update={"s3_buckets": (S3_BUCKET, "absent-bucket")})
    house.settings = house.settings.model_copy(update={"limits": limits})
    return boto3.client("s3")


@pytest.fixture
def place(tmp_path):
    """A prefix of this test's own."""
    return f"tables/{tmp_path.name}"


@pytest.fixture
def put(s3, place):
    def put(name, content):
        s3.put_object(Bucket=S3_BUCKET, Key=f"{place}/in/{name}", Body=content)

    return put


@pytest.fixture
def keys(s3, place):
    """The names under the output, without their prefix."""

    def keys():
        prefix = f"{place}/out/"
        listed = s3.list_objects_v2(Bucket=S3_BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"].removeprefix(prefix) for item in listed]

    return keys


@pytest.fixture
def content(s3, place):
    def content(name):
        return s3.get_object(Bucket=S3_BUCKET, Key=f"{place}/out/{name}")["Body"].read()

    return content


def request(place, output=None, window="24h", **source):
    terms = {"uri": f"s3://{S3_BUCKET}/{place}/in/", "format": "csv", "column": "q", "model": "m"}
    return BatchRequest.model_validate_json(
        json.dumps(
            {
                "endpoint": CHAT,
                "completion_window": window,
                "input": {k: v for k, v in (terms | source).items() if v is not None},
                "output": {"uri": f"s3://{S3_BUCKET}/{place}/out/"} | (output or {}),
            }
        )
    )


async def ended(house, kit, wanted):
    async with house.working(group_lines=100) as work:
        batch = await work.batches.create(kit.principal, wanted)
        return await house.ended(work, batch.id)


def chat_answer(text):
    said = {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3},
    }
    return Answer(200, json.dumps(said).encode())


def chat_answers(house):
    """Replicas that answer as a model of a real runtime does."""

    async def behave(prompt):
        return chat_answer(f"echo {prompt}")

    house.replicas.behaviour = behave


async def test_each_row_comes_out_once_in_order_with_its_columns_and_its_answer(
    house, kit, put, keys, content, place
):
    await house.deploy()
    chat_answers(house)
    put("b/part-001.csv.gz", gzip.compress(b"id,q\n3,three\n4,four\n"))
    put("a-000.csv", b'id,q\n1,"one, and\nmore"\n2,two\n')
    put("_SUCCESS", b"")
    done = await ended(house, kit, request(place))
    assert (done.status, done.output_file_id, done.input_file_id) == ("completed", None, None)
    assert done.request_counts.model_dump() == {"total": 4, "completed": 4, "failed": 0}
    assert keys() == ["_SUCCESS", "_manifest.json", "a-000.out.csv", "b/part-001.out.csv"]
    assert content("a-000.out.csv").decode().splitlines() == [
        "id,q,answer,error,prompt_tokens,completion_tokens",
        '1,"one, and',
        'more","echo one, and',
        'more",,2,3',
        "2,two,echo two,,2,3",
    ]
    manifest = json.loads(content("_manifest.json"))
    assert (manifest["status"], manifest["rows"], manifest["answered"]) == ("completed", 4, 4)
    assert [(part["rows"], part["answered"]) for part in manifest["parts"]] == [(2, 2), (2, 2)]


async def test_parquet_is_answered_with_parquet_of_the_same_types(
    house, kit, put, s3, place, tmp_path, content
):
    await house.deploy(capacity=32)
    chat_answers(house)
    table = pa.table({"n": pa.array(range(210), pa.int16()), "q": [f"q{n}" for n in range(210)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    put("part-0.parquet", (tmp_path / "in.parquet").read_bytes())
    done = await ended(house, kit, request(place, format="parquet"))
    assert done.request_counts.completed == 210
    (tmp_path / "out.parquet").write_bytes(content("part-0.out.parquet"))
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.field("n").type == pa.int16()
    assert found.column("n").to_pylist() == list(range(210))
    assert found.column("answer").to_pylist() == [f"echo q{n}" for n in range(210)]


async def test_a_row_that_cannot_be_asked_or_is_refused_has_its_error_in_its_place(
    house, kit, put, place, content
):
    await house.deploy()

    async def behave(prompt):
        return kit.refused(400, "too_long") if prompt == "bad" else kit.said(prompt)

    house.replicas.behaviour = behave
    put("a.jsonl", b'{"q": "good"}\n{"x": 1}\nnot json\n{"q": "bad", "x": [2]}\n')
    done = await ended(house, kit, request(place, format="jsonl"))
    rows = [json.loads(line) for line in content("a.out.jsonl").splitlines()]
    assert done.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
    assert [row["error"] and row["error"].split(":")[0] for row in rows] == [
        None,
        "invalid_row",
        "invalid_row",
        "too_long",
    ]
    assert "the column 'q' has no value" in rows[1]["error"]
    assert (rows[1]["x"], rows[3]["x"]) == (1, [2])


async def test_a_template_fills_columns_into_a_request(house, kit, put, place, content):
    await house.deploy()
    template = {"model": "m", "messages": [{"role": "user", "content": "{{a}} and {{b}}"}]}
    put("x.csv", b"a,b,id\n1,2,k\n")
    await ended(
        house, kit, request(place, column=None, model=None, template=template, id_column="id")
    )
    assert house.replicas.asked == ["1 and 2"]


async def test_one_object_is_an_input_too(house, kit, put, place, keys):
    await house.deploy()
    put("a.csv", b"q\n1\n")
    put("b.csv", b"q\n2\n")
    await ended(house, kit, request(place, uri=f"s3://{S3_BUCKET}/{place}/in/b.csv"))
    assert house.replicas.asked == ["2"]
    assert keys() == ["_SUCCESS", "_manifest.json", "b.out.csv"]


@pytest.mark.parametrize(
    ("objects", "source", "said"),
    [
        ({}, {}, "there is no object under"),
        ({"a.csv": b"p\n1\n"}, {}, "a.csv has no column 'q'; it has p"),
        ({"a.csv": b"q,answer\n1,2\n"}, {}, "a column 'answer' already"),
        ({"a.csv": b"q\n1\n", "a.csv.gz": b""}, {}, "written to the same object"),
        ({"a.csv": b"q\n\xff\n"}, {}, "is not UTF-8"),
        ({"a.csv": b"q,id\n1,x\n2,x\n"}, {"id_column": "id"}, "the same custom_id 'x'"),
        ({}, {"uri": "s3://absent-bucket/in/"}, "NoSuchBucket"),
    ],
)
async def test_tables_that_cannot_be_read_fail_the_batch_before_anything_runs(
    house, kit, put, place, objects, source, said
):
    await house.deploy()
    for name, body in objects.items():
        put(name, body)
    done = await ended(house, kit, request(place, **source))
    assert done.status == "failed" and said in done.errors.data[0].message, done.errors
    assert house.replicas.asked == []


async def test_an_output_that_cannot_be_written_is_found_before_anything_runs(
    house, kit, put, place
):
    await house.deploy()
    put("a.csv", b"q\n1\n")
    done = await ended(house, kit, request(place, output={"uri": "s3://absent-bucket/out/"}))
    assert done.status == "failed" and "absent-bucket" in done.errors.data[0].message
    assert house.replicas.asked == []


async def test_more_rows_than_the_platform_takes_fail_the_batch(house, kit, put, place):
    await house.deploy()
    limits = house.settings.limits.model_copy(update={"batch_rows": 2})
    house.settings = house.settings.model_copy(update={"limits": limits})
    put("a.csv", b"q\n1\n2\n3\n")
    done = await ended(house, kit, request(place))
    assert [error.code for error in done.errors.data] == ["too_many_tasks"]


@pytest.mark.parametrize(
    ("source", "output", "param"),
    [
        ({"uri": "s3://other/in/"}, {}, "input.uri"),
        ({}, {"uri": "s3://other/out/"}, "output.uri"),
        ({}, {"uri": f"s3://{S3_BUCKET}/out"}, "output.uri"),
        ({"uri": f"s3://{S3_BUCKET}/a/"}, {"uri": f"s3://{S3_BUCKET}/a/out/"}, "output.uri"),
        ({"format": "jsonl"}, {"format": "parquet"}, "output.format"),
        ({"model": None}, {}, "input"),
    ],
)
async def test_terms_that_cannot_be_kept_are_refused_at_once(
    house, kit, s3, place, source, output, param
):
    with pytest.raises(BadRequest) as refused:
        await house.work().batches.create(kit.principal, request(place, output, **source))
    assert refused.value.param == param


async def test_a_part_that_changed_since_the_beginning_fails_the_batch_and_keeps_its_answers(
    house, kit, put, place, keys
):
    served = await house.deploy(capacity=0)
    put("a.csv", b"q\n1\n")
    async with house.working() as work:
        batch = await work.batches.create(kit.principal, request(place))
        await kit.until(
            lambda: work.batches.get(kit.principal, batch.id), lambda b: b.status == "in_progress"
        )
        put("a.csv", b"q\nsomething else\n")
        house.replicas_of(served, 1)
        done = await house.ended(work, batch.id)
        assert [error.code for error in done.errors.data] == ["output_not_written"]
        assert "has changed since the batch began" in done.errors.data[0].message
        assert (done.status, done.request_counts.completed) == ("failed", 1)
        assert keys() == ["_manifest.json"]
        put("a.csv", b"q\n1\n")
        again = await work.batches.retry(kit.principal, batch.id)
        done = await house.ended(work, again.id)
    assert done.status == "completed" and house.replicas.asked == ["1"]
    assert "a.out.csv" in keys()


async def test_after_the_window_the_rows_that_were_answered_are_written_and_a_retry_fills_the_rest(
    house, kit, put, place, keys, content
):
    served = await house.deploy(capacity=0)
    put("a.csv", b"q\none\ntwo\n")
    async with house.working() as work:
        batch = await work.batches.create(kit.principal, request(place, window="1h"))
        await kit.until(
            lambda: work.batches.get(kit.principal, batch.id), lambda b: b.status == "in_progress"
        )
        chat_answers(house)
        answer = house.replicas.behaviour

        async def only_one(prompt):
            return await (answer(prompt) if prompt == "one" else asyncio.sleep(60))

        house.replicas.behaviour = only_one
        house.replicas_of(served, 1)
        await kit.until(
            lambda: work.batches.get(kit.principal, batch.id),
            lambda b: b.request_counts.completed == 1,
        )
        house.clock.ahead += timedelta(hours=1)
        done = await house.ended(work, batch.id)
        assert done.status == "expired" and "_SUCCESS" not in keys()
        first = content("a.out.csv").decode().splitlines()
        assert first[1] == "one,echo one,,2,3" and first[2].startswith("two,,batch_expired: ")
        house.replicas.behaviour = answer
        again = await work.batches.retry(kit.principal, batch.id)
        done = await house.ended(work, again.id)
    assert done.request_counts.model_dump() == {"total": 1, "completed": 1, "failed": 0}
    assert content("a.out.csv").decode().splitlines()[1:] == [
        "one,echo one,,2,3",
        "two,echo two,,2,3",
    ]
    assert "_SUCCESS" in keys()


async def test_parts_are_fixed_when_the_batch_begins(house, kit, put, place, keys):
    served = await house.deploy(capacity=0)
    put("b.csv", b"q\nb\n")
    async with house.working() as work:
        batch = await work.batches.create(kit.principal, request(place))
        await kit.until(
            lambda: work.batches.get(kit.principal, batch.id), lambda b: b.status == "in_progress"
        )
        put("a.csv", b"q\nlater\n")
        house.replicas_of(served, 1)
        await house.ended(work, batch.id)
    assert keys() == ["_SUCCESS", "_manifest.json", "b.out.csv"]


async def test_a_store_that_fails_for_a_while_delays_the_output_and_loses_nothing(
    house, kit, put, place, keys, monkeypatch
):
    await house.deploy()
    put("a.csv", b"q\n1\n")
    uploads = []
    upload = Bucket.upload

    async def flaky(self, path, key):
        uploads.append(key)
        if len(uploads) == 1:
            raise StoreUnavailable("slow down")
        await upload(self, path, key)

    monkeypatch.setattr(Bucket, "upload", flaky)
    done = await ended(house, kit, request(place))
    assert done.status == "completed" and len(uploads) == 2
    assert keys() == ["_SUCCESS", "_manifest.json", "a.out.csv"]
    assert list(house.settings.spool_dir.iterdir()) == []


class Network:
    """Whether S3 is reached, by clients that try once and not five times."""

    def __init__(self, monkeypatch, nobody):
        self._there = os.environ["AWS_ENDPOINT_URL"]
        self._nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        self._patch = monkeypatch
        monkeypatch.setattr(bucket, "new_client", partial(bucket.new_client, tries=1))

    def cut(self):
        self._patch.setenv("AWS_ENDPOINT_URL", self._nowhere)

    def mend(self):
        self._patch.setenv("AWS_ENDPOINT_URL", self._there)


@pytest.fixture
def network(s3, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield Network(monkeypatch, nobody)


async def held_up(house, kit, work, place):
    """A batch that says why it does not go on."""
    batch = await work.batches.create(kit.principal, request(place))
    seen = await kit.until(lambda: work.batches.get(kit.principal, batch.id), lambda b: b.errors)
    assert seen.errors.data[0].code == "storage_unavailable"
    assert "127.0.0.1" in seen.errors.data[0].message
    return seen


async def test_a_batch_whose_storage_is_away_says_so_and_begins_when_it_is_back(
    house, kit, put, place, network
):
    await house.deploy(capacity=0)
    put("a.csv", b"q\n1\n")
    network.cut()
    async with house.working() as work:
        batch = await held_up(house, kit, work, place)
        assert batch.status == "validating"
        network.mend()
        begun = await kit.until(
            lambda: work.batches.get(kit.principal, batch.id), lambda b: b.in_progress_at
        )
    assert (begun.status, begun.errors) == ("in_progress", None)


async def test_a_batch_whose_answers_cannot_be_written_says_so_and_keeps_them_past_its_window(
    house, kit, put, place, network
):
    await house.deploy()
    put("a.csv", b"q\n1\n")

    async def last_answer(prompt):
        network.cut()
        return chat_answer("one")

    house.replicas.behaviour = last_answer
    async with house.working() as work:
        batch = await held_up(house, kit, work, place)
        assert batch.status == "finalizing"
        house.clock.ahead += timedelta(hours=25)
        network.mend()
        done = await house.ended(work, batch.id)
    assert (done.status, done.errors, done.request_counts.completed) == ("completed", None, 1)


async def test_a_batch_whose_storage_is_away_for_its_whole_window_fails_with_the_cause(
    house, kit, place, network
):
    network.cut()
    async with house.working() as work:
        batch = await held_up(house, kit, work, place)
        house.clock.ahead += timedelta(hours=25)
        done = await house.ended(work, batch.id)
    assert (done.status, done.errors.data[0].code) == ("failed", "storage_unavailable")


async def test_a_batch_that_fails_before_it_began_leaves_no_line_to_run(
    house, kit, put, place, monkeypatch
):
    await house.deploy(capacity=0)
    put("a.csv", b"q\n1\n2\n3\n")
    add, added = batches.add_lines, []

    def once(session, seen, lines):
        """The storage goes after the first group of lines has its rows."""
        if added:
            raise StoreUnavailable("gone")
        added.append(lines)
        return add(session, seen, lines)

    monkeypatch.setattr(batches, "add_lines", once)
    async with house.working() as work:
        batch = await work.batches.create(kit.principal, request(place))
        await kit.until(lambda: work.batches.get(kit.principal, batch.id), lambda b: b.errors)
        house.clock.ahead += timedelta(hours=25)
        done = await house.ended(work, batch.id)
    assert (done.status, len(added[0])) == ("failed", 2)
    found = await house.db.read(lambda session: batches.lines(session, batch.id))
    assert found == batches.Lines(cut_off=True)


async def test_a_row_whose_answer_is_gone_says_so_and_the_others_have_theirs(
    house, kit, put, content, place
):
    await house.deploy()
    put("a.csv", b"q\n1\n2\n")

    async def stored():
        return list(house.settings.objects_dir.glob("prj_1/results/*/*"))

    async def lose_and_answer(prompt):
        """The answer to the first row is lost before the second is given."""
        if prompt == "1":
            return chat_answer("x" * 5000)
        [path] = await kit.until(stored, bool)
        path.unlink()
        return chat_answer("two")

    house.replicas.behaviour = lose_and_answer
    done = await ended(house, kit, request(place))
    assert done.status == "completed"
    assert done.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
    rows = content("a.out.csv").decode().splitlines()
    assert rows[1].startswith("1,,result_unreadable: ") and rows[2].startswith("2,two,,")
    assert json.loads(content("_manifest.json"))["answered"] == 1


async def test_a_batch_over_tables_that_was_answered_whole_is_not_retried(house, kit, put, place):
    await house.deploy()
    put("a.csv", b"q\n1\n")
    async with house.working() as work:
        batch = await work.batches.create(kit.principal, request(place))
        await house.ended(work, batch.id)
        with pytest.raises(Conflict):
            await work.batches.retry(kit.principal, batch.id)
