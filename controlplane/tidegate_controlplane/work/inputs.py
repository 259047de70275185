"""Bodies that lie in S3 already, read with the platform's own rights.

A caller names an object and the platform reads it, so only buckets that the settings list may be
named: nobody reads the operator's other buckets through an invocation. The object is pinned by its
ETag when the invocation is accepted; one that was changed since then is an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from tidegate_controlplane.errors import BadRequest, Conflict, NotFound, TooLarge, Unavailable
from tidegate_controlplane.objects.base import (
    PIECE_BYTES,
    ObjectChanged,
    ObjectNotFound,
    ObjectRefused,
    ObjectStoreError,
)
from tidegate_controlplane.objects.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

T = TypeVar("T")


@dataclass(frozen=True)
class Pinned:
    """One version of an object."""

    etag: str
    bytes: int


class Inputs:
    """The objects of `buckets`, of at most `max_bytes` each."""

    def __init__(self, buckets: Collection[str], max_bytes: int) -> None:
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes

    async def pin(self, uri: str) -> Pinned:
        """The object as it is now.

        Raises BadRequest for a place that may not be read, NotFound, TooLarge, Unavailable.
        """
        bucket, key = self._place(uri)
        found = await _run(uri, lambda: self._client.head_object(Bucket=bucket, Key=key))
        if found["ContentLength"] > self._max_bytes:
            raise TooLarge(
                f"input_uri: {uri!r} has {found['ContentLength']} bytes, more than "
                f"{self._max_bytes}; split it",
                param="input_uri",
            )
        return Pinned(found["ETag"], found["ContentLength"])

    async def read(self, uri: str, etag: str) -> AsyncGenerator[bytes]:
        """The object that was pinned, in pieces. Raises Conflict when it is another now."""
        bucket, key = self._place(uri)
        found = await _run(
            uri, lambda: self._client.get_object(Bucket=bucket, Key=key, IfMatch=etag)
        )
        body = found["Body"]
        try:
            while piece := await _run(uri, lambda: body.read(PIECE_BYTES)):
                yield piece
        finally:
            body.close()

    @cached_property
    def _client(self) -> S3Client:
        from tidegate_controlplane.objects.s3 import new_client  # boto3 takes half a second

        return new_client()

    def _place(self, uri: str) -> tuple[str, str]:
        place = urlsplit(uri, allow_fragments=False)
        key = place.path.removeprefix("/") + (f"?{place.query}" if place.query else "")
        if place.scheme != "s3" or not place.netloc or not key:
            raise BadRequest(
                f"input_uri: expected s3://bucket/key, got {uri[:128]!r}", param="input_uri"
            )
        if place.netloc not in self._buckets:
            raise BadRequest(
                f"input_uri: the bucket {place.netloc[:64]!r} is not one that requests may read; "
                "the operator lists those in `limits.s3_buckets`",
                code="bucket_not_allowed",
                param="input_uri",
            )
        return place.netloc, key


async def _run(uri: str, call: Callable[[], T]) -> T:
    def said_plainly() -> T:
        with _said_plainly(uri):
            return call()

    return await in_thread(said_plainly)


@contextmanager
def _said_plainly(uri: str) -> Iterator[None]:
    from tidegate_controlplane.objects.bucket import refusals

    try:
        with refusals(uri):
            yield
    except ObjectChanged as error:
        raise Conflict(
            f"input_uri: {uri!r} was changed after the invocation was accepted; submit it anew",
            code="input_changed",
            param="input_uri",
        ) from error
    except (ObjectRefused, ObjectNotFound) as error:
        raise NotFound(
            f"input_uri: the platform cannot read {uri!r}; check the name, and the platform's "
            "rights",
            code="input_not_found",
            param="input_uri",
        ) from error
    except ObjectStoreError as error:
        raise Unavailable(f"input_uri: {error}", retry_after_s=5.0) from error
