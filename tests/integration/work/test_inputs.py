"""Bodies by reference, on a real S3 server."""

from __future__ import annotations

import asyncio
import json

import boto3
import pytest

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.errors import BadRequest, NotFound, TooLarge
from tidegate_controlplane.work.invocations import Terms

BUCKET = "tidegate-test"
CHAT = "/v1/chat/completions"


@pytest.fixture
def s3(s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def put(s3, request):
    def make(body):
        key = f"inputs/{abs(hash(request.node.name))}.json"
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    return make


@pytest.fixture
def allowed(house):
    """Settings that let requests name the bucket."""
    limits = house.settings.limits.model_copy(update={"s3_buckets": (BUCKET,)})
    return house.settings.model_copy(update={"limits": limits})


def reference(uri, model="m", endpoint=CHAT, **more):
    return json.dumps({"model": model, "endpoint": endpoint, "input_uri": uri, **more}).encode()


async def submitted(work, kit, body):
    accepted, _ = await work.invocations.submit(kit.principal, body, Terms())
    return accepted


async def test_a_body_by_reference_is_answered_as_if_it_had_been_sent(house, kit, put, allowed):
    await house.deploy()
    uri = put(kit.chat_bytes("from afar"))
    async with house.working(settings=allowed) as work:
        accepted = await submitted(work, kit, reference(uri))
        assert (accepted.input_uri, accepted.endpoint) == (uri, CHAT)
        done = await house.finished(work, accepted.id)
        result = await work.invocations.result(kit.principal, accepted.id)
    assert done.status == "succeeded"
    assert json.loads(result)["text"] == "echo from afar"
    assert await house.objects.exists(f"prj_1/requests/{accepted.id}/1")


async def test_another_attempt_does_not_fetch_it_again(house, kit, put, allowed, s3):
    await house.deploy()
    uri = put(kit.chat_bytes("once"))
    answers = [kit.refused(500), kit.said("at last")]

    async def behave(prompt):
        s3.delete_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))
        return answers.pop(0)

    house.replicas.behaviour = behave
    async with house.working(settings=allowed) as work:
        done = await house.finished(work, (await submitted(work, kit, reference(uri))).id)
    assert (done.status, done.attempt) == ("succeeded", 2)


async def test_an_object_that_was_changed_since_is_an_error_and_not_another_answer(
    house, kit, put, allowed
):
    served = await house.deploy(capacity=0)
    async with house.working(settings=allowed) as work:
        accepted = await submitted(work, kit, reference(put(kit.chat_bytes("one"))))
        put(kit.chat_bytes("another"))
        house.replicas_of(served, 1)
        done = await house.finished(work, accepted.id)
    assert (done.status, done.error.code, done.attempt) == ("failed", "input_changed", 1)
    assert house.replicas.asked == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "m", "prompt": "x"}', "input_mismatch"),
        (b'{"model": "other", "messages": [{"role": "user", "content": "x"}]}', "input_mismatch"),
        (b"not json", "invalid_json"),
        (b'{"model": "m", "messages": [], "colour": 1}', "unsupported_parameter"),
    ],
)
async def test_what_is_wrong_with_the_object_fails_the_invocation_and_leaves_no_copy(
    house, kit, put, allowed, body, code
):
    await house.deploy()
    async with house.working(settings=allowed) as work:
        accepted = await submitted(work, kit, reference(put(body)))
        done = await house.finished(work, accepted.id)
    assert (done.status, done.error.code) == ("failed", code)
    assert [path for path in house.settings.objects_dir.rglob("*") if path.is_file()] == []


async def test_only_listed_buckets_may_be_named(house, kit, put):
    await house.deploy()
    with pytest.raises(
        BadRequest, match=f"{BUCKET!r} is not one that requests may read"
    ) as refused:
        await submitted(house.work(), kit, reference(put(b"{}")))
    assert refused.value.code == "bucket_not_allowed"


@pytest.mark.parametrize(
    "uri", ["https://example.org/x", "s3://", f"s3://{BUCKET}", f"s3://{BUCKET}/", "file:///etc"]
)
async def test_only_places_in_s3_may_be_named(house, kit, allowed, uri):
    await house.deploy()
    with pytest.raises(BadRequest, match="s3://bucket/key"):
        await submitted(house.work(settings=allowed), kit, reference(uri))


async def test_an_object_that_is_absent_or_too_large_is_refused_at_once(house, kit, put, allowed):
    await house.deploy()
    with pytest.raises(NotFound, match="cannot read"):
        await submitted(house.work(settings=allowed), kit, reference(f"s3://{BUCKET}/absent"))
    limits = allowed.limits.model_copy(update={"invocation_body_bytes": 10})
    narrow = allowed.model_copy(update={"limits": limits})
    with pytest.raises(TooLarge, match="more than 10"):
        await submitted(house.work(settings=narrow), kit, reference(put(kit.chat_bytes("hi"))))


async def test_a_reference_says_nothing_that_is_not_honoured(house, kit, allowed):
    await house.deploy()
    with pytest.raises(BadRequest, match="temperature"):
        body = reference(f"s3://{BUCKET}/x", temperature=0)
        await submitted(house.work(settings=allowed), kit, body)


async def test_a_store_that_cannot_be_reached_is_tried_again(
    house, kit, put, allowed, s3_server, monkeypatch
):
    served = await house.deploy(capacity=0)
    uri = put(kit.chat_bytes("hi"))
    async with house.working(settings=allowed) as work:
        accepted = await submitted(work, kit, reference(uri))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with house.working(settings=allowed) as work:
        house.replicas_of(served, 1)
        async with asyncio.timeout(60):
            while not (seen := await work.invocations.get(kit.principal, accepted.id)).error:
                await asyncio.sleep(0.05)
    assert seen.status in (InvocationState.QUEUED, InvocationState.RUNNING, InvocationState.DEAD)
    assert seen.attempts[0].error.code == "unavailable"
