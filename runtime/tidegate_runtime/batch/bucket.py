"""A place in S3: a bucket and what its keys begin with.

boto3 reads its endpoint and credentials from the environment, in a job those of its role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_runtime.errors import InputRefused, ReplicaUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
OBJECT_SUFFIX = ".jsonl"
_SCHEME = "s3://"
_BLOCK_BYTES = 1 << 20
_MISSING = frozenset({"NoSuchBucket", "NoSuchKey", "404"})
_FORBIDDEN = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_CHANGED = frozenset({"PreconditionFailed", "412"})


@dataclass(frozen=True)
class Found:
    """One object. `name` is what its key has after the prefix."""

    key: str
    name: str
    etag: str
    size_bytes: int


class Bucket:
    """Every method raises InputRefused for what starting again cannot help, and
    ReplicaUnavailable for the rest.
    """

    def __init__(self, url: str, field: str) -> None:
        """`field` is what the place is called in errors."""
        bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
        if not url.startswith(_SCHEME) or not bucket:
            raise InputRefused(f"{field}: {url!r} is no place in S3; write s3://bucket/prefix/")
        is_whole = not prefix or prefix.endswith(("/", OBJECT_SUFFIX))
        self.url, self.prefix = url, prefix if is_whole else f"{prefix}/"
        self._bucket = bucket
        self._field = field
        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10)
        self._client: S3Client = self._explained(
            lambda: boto3.Session().client("s3", config=config)
        )

    def find(self, under: str = "") -> list[Found]:
        """Every object whose key begins with the prefix and `under`, by key.

        A place that names a .jsonl object is that object alone.
        """
        return self._explained(lambda: list(self._found(self.prefix + under)))

    def blocks(self, item: Found, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` of an object that has not changed."""
        until = "" if end is None else end - 1
        body = self._explained(
            lambda: self._client.get_object(
                Bucket=self._bucket,
                Key=item.key,
                IfMatch=f'"{item.etag}"',
                Range=f"bytes={start}-{until}",
            )["Body"]
        )
        while block := self._explained(lambda: body.read(_BLOCK_BYTES)):
            yield block

    def holds(self, other: Bucket) -> bool:
        """Whether what is written to another place would be found in this one."""
        return self._bucket == other._bucket and other.prefix.startswith(self.prefix)

    def put(self, name: str, body: bytes) -> None:
        """Write a whole object, over one that is there."""
        self._explained(
            lambda: self._client.put_object(Bucket=self._bucket, Key=self.prefix + name, Body=body)
        )

    def _found(self, prefix: str) -> Iterator[Found]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                key = item["Key"]
                if self.prefix.endswith(OBJECT_SUFFIX) and key != self.prefix:
                    continue
                name = key[len(self.prefix) :] or key.rpartition("/")[2]
                yield Found(key, name, item.get("ETag", "").strip('"'), item.get("Size", 0))

    def _explained(self, work: Callable[[], T]) -> T:
        place = f"{self._field}: {self.url!r}"
        try:
            return work()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise InputRefused(f"{place} does not exist ({code}); check its name") from error
            if code in _FORBIDDEN:
                raise InputRefused(
                    f"{place} may not be used ({code}); give the job's role s3:ListBucket, "
                    "s3:GetObject and s3:PutObject there"
                ) from error
            if code in _CHANGED:
                raise InputRefused(
                    f"{place} changed while it was read; leave it as it is, and write to a new "
                    "output"
                ) from error
            raise ReplicaUnavailable("S3Unavailable", f"{place}: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise ReplicaUnavailable("S3Unavailable", f"{place}: {error}") from error
