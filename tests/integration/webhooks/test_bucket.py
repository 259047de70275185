"""Events as objects of a real S3 server."""

from __future__ import annotations

import json

import boto3
import pytest

from tidegate.protocol.webhooks import DeliveryState
from tidegate_controlplane.errors import Invalid

BUCKET = "tidegate-test"


@pytest.fixture
def s3(s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


async def test_each_event_is_one_object_and_a_replay_writes_over_it(post, s3):
    post = post.with_settings(timeout_s=10, lease_s=20)
    hook = await post.declare(f"s3://{BUCKET}/hooks/{post.settings.data_dir.name}/")
    async with post.delivering():
        sent = await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
        await post.hooks.replay("prj_1", hook.id, sent.id)
        [delivery] = await post.ended(hook.id)
    assert (delivery.status, len(delivery.tries)) == (DeliveryState.DELIVERED, 2)
    prefix = f"hooks/{post.settings.data_dir.name}/"
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    assert [one["Key"] for one in found] == [f"{prefix}{sent.event}.json"]
    body = s3.get_object(Bucket=BUCKET, Key=found[0]["Key"])["Body"].read()
    assert json.loads(body)["data"] == {"id": hook.id}


async def test_a_bucket_that_the_settings_do_not_list_is_refused(post):
    with pytest.raises(Invalid, match=r"'other' is not allowed.*limits\.s3_buckets"):
        await post.declare("s3://other/prefix/")


async def test_a_store_that_is_away_is_an_error_of_the_try(post, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    post = post.with_settings(tries=1)
    hook = await post.declare(f"s3://{BUCKET}/x/")
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DeliveryState.DEAD
    assert delivery.tries[0].error.startswith("not stored: S3 cannot be used")
