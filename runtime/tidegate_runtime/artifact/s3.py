"""Models in S3: list, check the names, fetch what the loader needs.

boto3 reads its endpoint and credentials from the environment (`AWS_ENDPOINT_URL_S3`,
`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate.spec.source import model_digest
from tidegate_runtime.artifact.cache import publish_once
from tidegate_runtime.artifact.check import CHECKED_CONFIGS, check_listing
from tidegate_runtime.artifact.manifest import MANIFEST
from tidegate_runtime.artifact.wanted import is_wanted
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class _Object:
    """One object under the prefix: its key, its name relative to the prefix, its identity."""

    key: str
    name: str
    etag: str
    size_bytes: int


def fetch_s3(location: str, cache_dir: Path) -> tuple[Path, str]:
    """The directory (or .gguf file) of `bucket/prefix`, kept under a digest of its listing, and
    that of the model.

    An object that changes gives a new digest, so a cached model is never stale. Raises
    ModelRefused (SourceNotFound and what the check refuses) and ReplicaUnavailable.
    """
    bucket, _, key = location.partition("/")
    source = f"s3://{location}"
    try:
        client = _connect()
        objects = _list(client, bucket, key)
        if not objects:
            raise ModelRefused(
                "SourceNotFound",
                f"model source {source!r}: there is no object under that key; check bucket and "
                "prefix, and that the endpoint is the right one",
            )
        check_listing(source, [item.name for item in objects], _configs(client, bucket, objects))
        wanted = [item for item in objects if is_wanted(item.name)]
        directory = _download(client, bucket, wanted, cache_dir)
    except (ClientError, BotoCoreError) as error:
        raise _explain(source, error) from error
    only_gguf = len(wanted) == 1 and wanted[0].key == key
    digest = model_digest((item.name, item.size_bytes, item.etag.strip('"')) for item in objects)
    return directory / wanted[0].name if only_gguf else directory, digest


def fetch_artifact(location: str, cache_dir: Path) -> Path | None:
    """The directory of the artifact at `bucket/prefix`; None when there is no artifact.

    Its files are verified when it is opened. Raises ModelRefused and ReplicaUnavailable.
    """
    bucket, _, key = location.rstrip("/").partition("/")
    try:
        client = _connect()
        objects = _list(client, bucket, key)
        if MANIFEST not in {item.name for item in objects}:
            return None
        return _download(client, bucket, objects, cache_dir)
    except (ClientError, BotoCoreError) as error:
        raise _explain(f"s3://{location}", error) from error


def fetch_files(
    location: str, cache_dir: Path, choose: Callable[[str, Iterable[str]], list[str]]
) -> Path:
    """A directory with some of the objects under `bucket/prefix`, kept under a digest of them.

    `choose` says which, of their names. Raises what it raises, ModelRefused (SourceNotFound) and
    ReplicaUnavailable.
    """
    bucket, _, key = location.partition("/")
    source = f"s3://{location}"
    try:
        client = _connect()
        objects = _list(client, bucket, key)
        chosen = choose(source, [item.name for item in objects])
        wanted = [item for item in objects if item.name in chosen]
        return _download(client, bucket, wanted, cache_dir)
    except (ClientError, BotoCoreError) as error:
        raise _explain(source, error) from error


def _connect() -> S3Client:
    """A session of its own: boto3 keeps the credentials of its shared one for ever."""
    retries = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10)
    return boto3.Session().client("s3", config=retries)


def _download(client: S3Client, bucket: str, objects: list[_Object], cache_dir: Path) -> Path:
    """A directory with these objects, kept under a digest of their listing."""

    def fill(directory: Path) -> None:
        for item in objects:
            target = directory / item.name
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item.key, str(target))

    return publish_once(cache_dir / "s3", _digest(bucket, objects), fill)


def _list(client: S3Client, bucket: str, key: str) -> list[_Object]:
    """The object with exactly this key, or else every object under `key/`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    objects = []
    for page in pages:
        for item in page.get("Contents", []):
            path = item["Key"]
            if path == key:
                name = PurePosixPath(key).name
            elif path.startswith(f"{key}/") and not path.endswith("/"):
                name = path[len(key) + 1 :]
            else:
                continue
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise ModelRefused(
                    "NotAModel", f"model source 's3://{bucket}/{key}': refused name {path!r}"
                )
            objects.append(_Object(path, name, item.get("ETag", ""), item.get("Size", 0)))
    return objects


def _configs(client: S3Client, bucket: str, objects: list[_Object]) -> dict[str, dict[str, Any]]:
    configs = {}
    for item in objects:
        if item.name in CHECKED_CONFIGS:
            body = client.get_object(Bucket=bucket, Key=item.key)["Body"].read()
            try:
                value = json.loads(body)
            except ValueError as error:
                raise ModelRefused(
                    "NotAModel", f"'s3://{bucket}/{item.key}' is not JSON ({error})"
                ) from error
            configs[item.name] = value if isinstance(value, dict) else {}
    return configs


def _digest(bucket: str, objects: list[_Object]) -> str:
    listing = [[item.key, item.etag, item.size_bytes] for item in objects]
    return hashlib.sha256(json.dumps([bucket, sorted(listing)]).encode()).hexdigest()[:32]


def _explain(source: str, error: ClientError | BotoCoreError) -> ModelRefused | ReplicaUnavailable:
    if isinstance(error, BotoCoreError):
        return ReplicaUnavailable(
            "SourceUnavailable", f"model source {source!r} cannot be reached: {error}"
        )
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in {"NoSuchBucket", "NoSuchKey", "404"}:
        return ModelRefused(
            "SourceNotFound", f"model source {source!r} does not exist ({code}); check the bucket"
        )
    if code in {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
        return ModelRefused(
            "SourceForbidden",
            f"model source {source!r} may not be read ({code}); give the replica credentials "
            "with s3:ListBucket and s3:GetObject",
        )
    return ReplicaUnavailable("SourceUnavailable", f"model source {source!r}: {error}")
