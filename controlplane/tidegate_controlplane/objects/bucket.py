"""A bucket of somebody else's, whose objects are read and written under the names they have.

An object is downloaded as it was when it was listed, or not at all; an upload is seen whole or not
at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tidegate_controlplane.objects.base import (
    PIECE_BYTES,
    ObjectChanged,
    ObjectRefused,
    ObjectStoreError,
)
from tidegate_controlplane.objects.s3 import new_client, said_plainly
from tidegate_controlplane.objects.threads import in_thread
from tidegate_controlplane.objects.version import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOR_GOOD = frozenset(
    {"403", "AccessDenied", "404", "NoSuchBucket", "NoSuchKey", "AllAccessDisabled"}
)
CHANGED = frozenset({"412", "PreconditionFailed"})
MARKS = ("_", ".")
"""Names that begin so are marks and manifests of whoever wrote the others."""


class Bucket:
    """Raises ObjectRefused, and StoreUnavailable where asking again may help."""

    def __init__(self, name: str, client: S3Client | None = None) -> None:
        self._name = name
        self._client = client or new_client()

    async def listing(self, prefix: str, most: int) -> list[ObjectVersion]:
        """The object of this key; with a `/` at its end, those below, in the order of their keys.

        At most one more than `most`, so that it is known whether there are more.
        """
        return await in_thread(self._list, prefix, most)

    async def download(self, version: ObjectVersion, path: Path) -> None:
        await in_thread(self._download, version, path)

    async def upload(self, path: Path, key: str) -> None:
        await in_thread(self._upload, path, key)

    async def put(self, key: str, data: bytes) -> None:
        """A small object."""
        await in_thread(self._put, key, data)

    async def delete(self, key: str) -> None:
        """Remove it; one that is absent is no error."""
        await in_thread(self._delete, key)

    def _uri(self, key: str) -> str:
        return f"s3://{self._name}/{key}"

    def _list(self, prefix: str, most: int) -> list[ObjectVersion]:
        found: list[ObjectVersion] = []
        with refusals(self._uri(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=prefix
            )
            for page in pages:
                contents = page.get("Contents", [])
                versions = (ObjectVersion(i["Key"], i["ETag"], i["Size"]) for i in contents)
                found += [one for one in versions if _is_wanted(one.key, prefix)]
                if len(found) > most:
                    break
        return found[: most + 1]

    def _download(self, version: ObjectVersion, path: Path) -> None:
        with refusals(self._uri(version.key)), path.open("wb") as file:
            answer = self._client.get_object(
                Bucket=self._name, Key=version.key, IfMatch=version.etag
            )
            with answer["Body"] as body:
                while piece := body.read(PIECE_BYTES):
                    file.write(piece)

    def _upload(self, path: Path, key: str) -> None:
        with refusals(self._uri(key)):
            self._client.upload_file(str(path), self._name, key)

    def _put(self, key: str, data: bytes) -> None:
        with refusals(self._uri(key)):
            self._client.put_object(Bucket=self._name, Key=key, Body=data)

    def _delete(self, key: str) -> None:
        with refusals(self._uri(key)):
            self._client.delete_object(Bucket=self._name, Key=key)


def _is_wanted(key: str, prefix: str) -> bool:
    name = key.rsplit("/", 1)[-1]
    if not prefix.endswith("/") and prefix:
        return key == prefix
    return bool(name) and not name.startswith(MARKS)


@contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Raise ObjectChanged, ObjectRefused or another ObjectStoreError instead of boto3's errors."""
    from boto3.exceptions import S3UploadFailedError

    try:
        with said_plainly(uri):
            try:
                yield
            except S3UploadFailedError as error:
                raise (error.__cause__ or error.__context__ or error) from None
    except ObjectStoreError as error:
        code = _code(error.__cause__)
        if code in CHANGED:
            raise ObjectChanged(f"{uri} has changed since the batch began") from error
        if code in FOR_GOOD:
            raise ObjectRefused(
                f"{uri}: {code}; check the name, and the rights of the platform's credentials"
            ) from error
        raise


def _code(cause: BaseException | None) -> str:
    return str(cause.response["Error"].get("Code")) if isinstance(cause, ClientError) else ""
