"""What an object store promises.

An object is whole or absent: `put` publishes it with its last byte, durably, or leaves nothing.
Putting a key again replaces the object, so a deterministic key makes writing idempotent.

    ObjectStoreError
    ├── ObjectNotFound
    ├── ObjectTooLarge
    ├── StoreFull            the disk is full
    ├── ObjectRefused        asking again cannot help: no such thing, or no right to it
    │   └── ObjectChanged    it is not what it was
    └── StoreUnavailable     the store does not answer, or refuses
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tidegate_controlplane.errors import ControlPlaneError

PIECE_BYTES = 1024 * 1024
"""Bytes that are read at once."""
LIST_PAGE = 1000
"""Objects that are listed at once."""

Chunks = AsyncIterable[bytes] | Iterable[bytes]

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_MAX_KEY_CHARS = 512


class ObjectStoreError(ControlPlaneError):
    """The root."""


class ObjectNotFound(ObjectStoreError):
    """No object has this key."""


class ObjectTooLarge(ObjectStoreError):
    """More bytes came than the caller allows; nothing was stored."""


class StoreFull(ObjectStoreError):
    """No space is left; nothing was stored, and what was there is untouched."""


class ObjectRefused(ObjectStoreError):
    """No such bucket or object, no right to it, or it is not what it was; asking again is vain."""


class ObjectChanged(ObjectRefused):
    """Another version is there now."""


class StoreUnavailable(ObjectStoreError):
    """The store could not be used; the message says why."""


@dataclass(frozen=True)
class Stored:
    """What was written: its size, and its SHA-256 in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Listed:
    """One object of a listing. `modified_at` is by the store's own clock."""

    key: str
    bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """Bytes under keys such as `results/inv_01…/2`. Nothing here blocks the event loop."""

    async def put(self, key: str, chunks: Chunks, max_bytes: int | None = None) -> Stored:
        """Store the concatenation of `chunks`; when this raises, the key is as it was before."""
        ...

    def get(self, key: str, start: int = 0) -> AsyncGenerator[bytes]:
        """The object from byte `start` on, in pieces; raises ObjectNotFound with the first one.

        Close it (`contextlib.aclosing`) when it is not read to its end.
        """
        ...

    async def read(self, key: str) -> bytes:
        """The whole object; for those known to be small."""
        ...

    async def delete(self, key: str) -> None:
        """Remove it; one that is absent is no error."""
        ...

    async def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> AsyncGenerator[Listed]:
        """Each object whose key begins with `prefix`, a page at a time, in no promised order.

        One that comes or goes meanwhile may be listed or not. Close it like `get`.
        """
        ...

    async def drop_unfinished(self, older_than_s: float) -> int:
        """Give back what writers left that were killed so long ago; how many there were."""
        ...


def check_key(key: str) -> str:
    """`key` itself; ValueError unless it is a relative path of plain names (never `..`)."""
    if len(key) > _MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise ValueError(f"not an object key: {key!r}")
    return key


async def pieces(chunks: Chunks, size_bytes: int, max_bytes: int | None) -> AsyncIterator[bytes]:
    """`chunks` cut anew into pieces of `size_bytes` (the last may be shorter).

    Raises ObjectTooLarge as soon as more than `max_bytes` came.
    """
    pending = bytearray()
    total = 0
    async for chunk in _each(chunks):
        total += len(chunk)
        if max_bytes is not None and total > max_bytes:
            raise ObjectTooLarge(f"more than {max_bytes} bytes")
        pending += chunk
        while len(pending) >= size_bytes:
            yield bytes(pending[:size_bytes])
            del pending[:size_bytes]
    if pending:
        yield bytes(pending)


async def chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """What was read already, then what follows it."""
    yield first
    async for piece in rest:
        yield piece


async def _each(chunks: Chunks) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk
