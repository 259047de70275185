"""Models from a real S3 server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.ports import free_port, free_ports
from tests.tiny_heads import digest_of, write_tiny_heads

from tidegate_runtime.adapters.source import fetch_adapter
from tidegate_runtime.artifact.resolve import resolve
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.speculation.source import fetch_heads

BUCKET = "models"


@pytest.fixture(scope="module")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running S3 server, as the environment that leads to it."""
    roles = ("master", "volume", "filer", "s3")
    port, *ports = free_ports(8)
    served = list(zip(roles, (*ports[:3], port), ports[3:], strict=True))
    directory = tmp_path_factory.mktemp("weed")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": "key", "secretKey": "secret"}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    weed = Path(sys.executable).with_name("weed")
    process = subprocess.Popen(
        [
            str(weed),
            "server",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{role}.port={at}" for role, at, _ in served),
            *(f"-{role}.port.grpc={at}" for role, _, at in served),
            "-s3",
            f"-s3.config={directory / 's3.json'}",
            "-master.volumeSizeLimitMB=64",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
    )
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield environment
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def bucket(s3_environment: dict[str, str]) -> Iterator[Any]:
    """A client with an empty bucket on the running server."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
            break
        except (ClientError, BotoCoreError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield client
    client.close()


def upload(client: Any, root: Path, prefix: str) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(root)}")


@pytest.fixture
def here(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment in this process."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)


def test_a_replica_serves_a_model_from_s3(
    spawn: Callable[..., Any], bucket: Any, s3_environment: dict[str, str], tiny_llama: Path
) -> None:
    upload(bucket, tiny_llama, "served")
    replica = spawn(s3_environment, source=f"s3://{BUCKET}/served")
    replica.wait_for("ready")
    with replica.client() as client:
        body = {"model": "test-model", "prompt": "abc", "max_tokens": 2, "ignore_eos": True}
        assert client.post("/v1/completions", json=body).status_code == 200
    assert httpx.get(replica.url + "/readyz").json()["context_tokens"] == 512


@pytest.mark.usefixtures("here")
def test_a_model_is_fetched_once_and_again_when_it_changes(
    bucket: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    upload(bucket, tiny_llama, "changing")
    bucket.put_object(Bucket=BUCKET, Key="changing/README.md", Body=b"not for the loader")
    found = resolve(f"s3://{BUCKET}/changing", None, tmp_path)
    first = found.files
    assert (first.root / "model.safetensors").read_bytes() == (
        tiny_llama / "model.safetensors"
    ).read_bytes()
    assert not (first.root / "README.md").exists()
    stamp = (first.root / "config.json").stat().st_mtime_ns
    again = resolve(f"s3://{BUCKET}/changing/", None, tmp_path).files
    assert (again.root / "config.json").stat().st_mtime_ns == stamp
    bucket.put_object(Bucket=BUCKET, Key="changing/generation_config.json", Body=b"{}")
    changed = resolve(f"s3://{BUCKET}/changing", None, tmp_path)
    assert changed.files.root != first.root
    assert changed.digest != found.digest


@pytest.mark.usefixtures("here")
def test_one_gguf_object_is_a_model(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket=BUCKET, Key="files/tiny.gguf", Body=b"GGUF and more")
    files = resolve(f"s3://{BUCKET}/files/tiny.gguf", None, tmp_path).files
    assert files.gguf is not None
    assert files.gguf.name == "tiny.gguf"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "PickledWeights"),
        ({"config.json": b'{"auto_map": {}}', "model.safetensors": b"x"}, "RemoteCode"),
        ({"readme.txt": b"hello"}, "NotAModel"),
    ],
)
def test_what_must_not_be_served_is_refused_before_it_is_fetched(
    bucket: Any, tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    prefix = tmp_path.name
    for name, body in files.items():
        bucket.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=body)
    with pytest.raises(ModelRefused) as refused:
        resolve(f"s3://{BUCKET}/{prefix}", None, tmp_path / "cache")
    assert refused.value.reason == reason
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("here", "bucket")
@pytest.mark.parametrize("source", ["s3://models/nothing-here", "s3://no-such-bucket/x"])
def test_what_is_not_there_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelRefused, match=source) as refused:
        resolve(source, None, tmp_path)
    assert refused.value.reason == "SourceNotFound"


@pytest.mark.usefixtures("here", "bucket")
def test_wrong_credentials_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ModelRefused) as refused:
        resolve(f"s3://{BUCKET}/served", None, tmp_path)
    assert refused.value.reason == "SourceForbidden"


@pytest.mark.usefixtures("here")
def test_a_server_that_is_away_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ReplicaUnavailable, match="cannot be reached"):
        resolve(f"s3://{BUCKET}/served", None, tmp_path)


@pytest.mark.usefixtures("here")
def test_an_adapter_is_its_two_files_and_another_when_they_change(
    bucket: Any, tmp_path: Path
) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w", "optimizer.pt": b"x"}
    for name, body in files.items():
        bucket.put_object(Bucket=BUCKET, Key=f"adapter/{name}", Body=body)
    first = fetch_adapter(f"s3://{BUCKET}/adapter", tmp_path)
    assert {path.name for path in first.iterdir()} == set(files) - {"optimizer.pt"}
    assert fetch_adapter(f"s3://{BUCKET}/adapter/", tmp_path) == first
    bucket.put_object(Bucket=BUCKET, Key="adapter/adapter_model.safetensors", Body=b"other")
    assert fetch_adapter(f"s3://{BUCKET}/adapter", tmp_path) != first
    bucket.delete_object(Bucket=BUCKET, Key="adapter/adapter_config.json")
    with pytest.raises(ModelRefused, match=r"has no adapter_config\.json"):
        fetch_adapter(f"s3://{BUCKET}/adapter", tmp_path)
    with pytest.raises(ModelRefused, match="has no adapter_config"):
        fetch_adapter(f"s3://{BUCKET}/nothing-here", tmp_path)


@pytest.mark.usefixtures("here")
def test_heads_are_their_two_files_with_the_digest_that_they_have_anywhere(
    bucket: Any, tmp_path: Path
) -> None:
    made = write_tiny_heads(tmp_path / "heads")
    (made / "notes.txt").write_text("made on a Tuesday")
    for path in made.iterdir():
        bucket.upload_file(str(path), BUCKET, f"heads/{path.name}")
    source, cache = f"s3://{BUCKET}/heads", tmp_path / "cache"
    first = fetch_heads(source, cache, digest=digest_of(made))
    assert {path.name for path in first.iterdir()} == {"heads.json", "heads.safetensors"}
    for path in first.iterdir():
        assert path.read_bytes() == (made / path.name).read_bytes()
    write_tiny_heads(made, b"others")
    for path in made.iterdir():
        bucket.upload_file(str(path), BUCKET, f"heads/{path.name}")
    with pytest.raises(ModelRefused, match="deploy it again") as refused:
        fetch_heads(source, cache, digest=digest_of(first))
    assert refused.value.reason == "SourceChanged"
    assert fetch_heads(source, cache) != first
    bucket.delete_object(Bucket=BUCKET, Key="heads/heads.safetensors")
    with pytest.raises(ModelRefused, match=r"there is no heads\.safetensors") as refused:
        fetch_heads(source, cache)
    assert refused.value.reason == "DamagedHeads"
