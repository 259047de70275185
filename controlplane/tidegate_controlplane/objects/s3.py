"""Objects in an S3 bucket, or in anything that speaks S3 (`AWS_ENDPOINT_URL` is honoured).

boto3 blocks, so each call runs in a thread. A small object is one request; a larger one is a
multipart upload, which becomes visible only when it is completed and is aborted when anything goes
wrong. A writer that is killed leaves an unfinished upload, which takes space but is never seen;
`drop_unfinished` aborts those that are old.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_controlplane.objects.base import (
    LIST_PAGE,
    PIECE_BYTES,
    Chunks,
    Listed,
    ObjectNotFound,
    Stored,
    StoreUnavailable,
    check_key,
    pieces,
)
from tidegate_controlplane.objects.threads import in_thread

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

P = ParamSpec("P")
T = TypeVar("T")

PART_BYTES = 8 * 1024 * 1024
"""Of a multipart upload: S3 allows 10,000 parts, so objects of up to 78 GiB."""

_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Store:
    """An ObjectStore under `prefix` in `bucket`."""

    def __init__(self, bucket: str, prefix: str = "", client: S3Client | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client or new_client()

    def check(self) -> None:
        """Raise StoreUnavailable unless the bucket answers. Blocks: for the start of a process."""
        with said_plainly(f"bucket {self._bucket}"):
            self._client.head_bucket(Bucket=self._bucket)

    async def put(self, key: str, chunks: Chunks, max_bytes: int | None = None) -> Stored:
        upload = _Upload(self._client, self._bucket, self._name(key))
        digest = hashlib.sha256()
        size = 0
        try:
            async for piece in pieces(chunks, PART_BYTES, max_bytes):
                await _run(key, upload.add, piece)
                digest.update(piece)
                size += len(piece)
            await _run(key, upload.complete)
        except BaseException:
            await _run(key, upload.abort)
            raise
        return Stored(size, digest.hexdigest())

    async def get(self, key: str, start: int = 0) -> AsyncGenerator[bytes]:
        download = _Download(self._client, self._bucket, self._name(key))
        try:
            await _run(key, download.open, start)
            while piece := await _run(key, download.read):
                yield piece
        finally:
            download.close()

    async def read(self, key: str) -> bytes:
        return b"".join([piece async for piece in self.get(key)])

    async def delete(self, key: str) -> None:
        await _run(key, self._client.delete_object, Bucket=self._bucket, Key=self._name(key))

    async def exists(self, key: str) -> bool:
        try:
            await _run(key, self._client.head_object, Bucket=self._bucket, Key=self._name(key))
        except ObjectNotFound:
            return False
        return True

    async def list(self, prefix: str = "") -> AsyncGenerator[Listed]:
        paginator = self._client.get_paginator("list_objects_v2")
        pages = iter(
            paginator.paginate(
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                PaginationConfig={"PageSize": LIST_PAGE},
            )
        )
        while page := await _run(prefix, next, pages, None):
            for found in page.get("Contents", []):
                key = found["Key"].removeprefix(self._prefix)
                yield Listed(key, found["Size"], found["LastModified"].astimezone(UTC))

    async def drop_unfinished(self, older_than_s: float) -> int:
        return await _run("unfinished uploads", self._abort_older, older_than_s)

    def _abort_older(self, older_than_s: float) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        paginator = self._client.get_paginator("list_multipart_uploads")
        number = 0
        for page in paginator.paginate(Bucket=self._bucket, Prefix=self._prefix):
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    number += 1
        return number

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)


class _Download:
    """One object on its way; its connection is given back even when nobody reads to the end."""

    def __init__(self, client: S3Client, bucket: str, name: str) -> None:
        self._client, self._bucket, self._name = client, bucket, name
        self._body: StreamingBody | None = None

    def open(self, start: int) -> None:
        """Ask for it from byte `start` on; when it ends before that, there is nothing to read."""
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._name, Range=f"bytes={start}-"
            )
        except ClientError as error:
            if _code(error) != "InvalidRange":
                raise
        else:
            self._body = answer["Body"]

    def read(self) -> bytes:
        return self._body.read(PIECE_BYTES) if self._body else b""

    def close(self) -> None:
        if self._body:
            self._body.close()


class _Upload:
    """One object on its way: a single request when it has one part, else a multipart upload."""

    def __init__(self, client: S3Client, bucket: str, name: str) -> None:
        self._client, self._bucket, self._name = client, bucket, name
        self._held = b""
        """The newest part, sent only when it is known whether it is also the only one."""
        self._id: str | None = None
        self._parts: list[CompletedPartTypeDef] = []

    def add(self, piece: bytes) -> None:
        if self._held:
            self._send()
        self._held = piece

    def complete(self) -> None:
        """Make it visible."""
        if self._id is None:
            self._client.put_object(Bucket=self._bucket, Key=self._name, Body=self._held)
            return
        self._send()
        self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=self._name,
            UploadId=self._id,
            MultipartUpload={"Parts": self._parts},
        )

    def abort(self) -> None:
        """Give back the space of the parts."""
        if self._id is not None:
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._name, UploadId=self._id
            )

    def _send(self) -> None:
        if self._id is None:
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._name)
            self._id = answer["UploadId"]
        number = len(self._parts) + 1
        part = self._client.upload_part(
            Bucket=self._bucket,
            Key=self._name,
            UploadId=self._id,
            PartNumber=number,
            Body=self._held,
        )
        self._parts.append({"ETag": part["ETag"], "PartNumber": number})


def new_client(connect_s: float = 5.0, read_s: float = 60.0, tries: int = 5) -> S3Client:
    """A client with bounded waits; where and with which rights, boto3 finds in its environment."""
    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": tries},
        ),
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


async def _run(key: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with said_plainly(key):
        return await in_thread(call, *args, **kwargs)


@contextmanager
def said_plainly(key: str) -> Iterator[None]:
    """Turn boto3's errors into the store's."""
    try:
        yield
    except ClientError as error:
        if _code(error) in _ABSENT:
            raise ObjectNotFound(f"there is no object {key!r} in the bucket") from error
        raise StoreUnavailable(f"S3 refused {key!r}: {error}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"S3 cannot be used for {key!r}: {error}") from error
