"""Objects of somebody else's bucket, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """An object as it was when it was listed."""

    key: str
    etag: str
    bytes: int


def place_of(uri: str) -> tuple[str, str]:
    """The bucket and the key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
