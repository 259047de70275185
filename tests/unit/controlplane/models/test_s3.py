"""Models in a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.tiny_heads import write_tiny_heads
from tests.unit.controlplane.models.conftest import MakeDirectory, MakeGguf

from tidegate.spec import ModelSpec
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.models.heads import inspect_heads
from tidegate_controlplane.models.inspect import Inspected, inspect

BUCKET = "tidegate-test"


async def unknown(digest: str) -> None:
    """Nothing was read before."""


async def inspected(source: str) -> Inspected:
    return await inspect(ModelSpec(source=source), unknown)


async def refusal(source: str) -> str:
    with pytest.raises(Invalid) as caught:
        await inspected(source)
    return caught.value.issues[0].message


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client; the environment of this process leads to the same server."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    yield client
    client.close()


def upload(s3: Any, directory: Path, prefix: str) -> None:
    for path in directory.iterdir():
        s3.upload_file(str(path), BUCKET, f"{prefix}/{path.name}")


async def test_a_prefix_is_a_model_with_the_facts_of_its_files(
    s3: Any, directory: MakeDirectory
) -> None:
    path = directory()
    upload(s3, path, "models/one")
    remote = (await inspected(f"s3://{BUCKET}/models/one/")).facts
    local = (await inspect(ModelSpec(source=str(path)), unknown)).facts
    assert remote.model_copy(update={"digest": local.digest}) == local


async def test_changed_weights_change_the_digest_and_a_readme_does_not(
    s3: Any, directory: MakeDirectory
) -> None:
    upload(s3, directory("before"), "models/two")
    before = (await inspected(f"s3://{BUCKET}/models/two")).facts
    s3.put_object(Bucket=BUCKET, Key="models/two/README.md", Body=b"other words")
    assert (await inspected(f"s3://{BUCKET}/models/two")).facts == before
    upload(s3, directory("after", fill=1.0), "models/two")
    assert (await inspected(f"s3://{BUCKET}/models/two")).facts.digest != before.digest


async def test_one_gguf_object_is_a_model_whatever_lies_beside_it(s3: Any, gguf: MakeGguf) -> None:
    path = gguf()
    s3.upload_file(str(path), BUCKET, "ggufs/tiny.gguf")
    s3.upload_file(str(path), BUCKET, "ggufs/tiny.gguf.bak.gguf")
    facts = (await inspected(f"s3://{BUCKET}/ggufs/tiny.gguf")).facts
    assert (facts.format, facts.parameters) == ("gguf", 640)
    assert facts.weights_bytes == path.stat().st_size


async def test_a_prefix_is_not_mistaken_for_a_longer_one(s3: Any, directory: MakeDirectory) -> None:
    upload(s3, directory(), "models/three-large")
    assert "does not exist" in await refusal(f"s3://{BUCKET}/models/three")


async def test_an_object_that_marks_a_folder_is_not_a_file_of_the_model(
    s3: Any, directory: MakeDirectory
) -> None:
    upload(s3, directory(), "models/four")
    before = (await inspected(f"s3://{BUCKET}/models/four")).facts
    s3.put_object(Bucket=BUCKET, Key="models/four/", Body=b"")
    assert (await inspected(f"s3://{BUCKET}/models/four")).facts == before


async def test_pickled_weights_are_refused(s3: Any, directory: MakeDirectory) -> None:
    path = directory()
    (path / "model.safetensors").rename(path / "model.pt")
    upload(s3, path, "models/pickled")
    message = await refusal(f"s3://{BUCKET}/models/pickled")
    assert "weights are pickled (model.pt)" in message


async def test_an_empty_object_is_refused_as_weights(s3: Any, directory: MakeDirectory) -> None:
    path = directory()
    (path / "model.safetensors").write_bytes(b"")
    upload(s3, path, "models/empty")
    assert "s3://" in await refusal(f"s3://{BUCKET}/models/empty")


async def test_a_bucket_that_does_not_exist_is_named_with_what_to_check(s3: Any) -> None:
    message = await refusal("s3://no-such-bucket/model")
    assert "'s3://no-such-bucket/model'" in message
    assert "check the bucket" in message


async def test_a_profile_that_does_not_exist_is_named(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody-here")
    message = await refusal(f"s3://{BUCKET}/models/one")
    assert "nobody-here" in message
    assert "AWS_PROFILE" in message


async def test_an_endpoint_that_is_no_url_is_named(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    assert "AWS_ENDPOINT_URL" in await refusal(f"s3://{BUCKET}/models/one")


async def test_heads_in_a_bucket_are_those_of_a_directory(s3: Any, tmp_path: Path) -> None:
    path = write_tiny_heads(tmp_path / "heads")
    upload(s3, path, "heads/one")
    assert await inspect_heads(f"s3://{BUCKET}/heads/one") == await inspect_heads(str(path))
    with pytest.raises(Invalid, match="'s3://tidegate-test/heads/two' does not exist"):
        await inspect_heads(f"s3://{BUCKET}/heads/two")
