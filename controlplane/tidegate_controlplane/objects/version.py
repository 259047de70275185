"""An object of somebody else's bucket as it is at one moment, and where it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectVersion:
    """What is read is this version, or nothing."""

    key: str
    etag: str
    bytes: int


def place_of(uri: str) -> tuple[str, str]:
    """The bucket and the key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
