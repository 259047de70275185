"""The database's own troubles, as answers to a caller.

A unit that meets one has changed nothing: its transaction was rolled back, and it may be tried
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from tidegate_controlplane.errors import Unavailable

_FULL = ("database or disk is full", "No space left on device")
_UNUSABLE = ("disk I/O error", "database is locked", "unable to open database file")


@contextmanager
def said_plainly() -> Iterator[None]:
    """Raise Unavailable when the disk is full or fails, or somebody else keeps the lock."""
    try:
        yield
    except DBAPIError as error:
        cause = str(error.orig)
        if any(said in cause for said in _FULL):
            raise Unavailable(
                "the platform's storage is full; nothing was stored",
                code="storage_full",
                retry_after_s=60.0,
            ) from error
        if any(said in cause for said in _UNUSABLE):
            raise Unavailable(
                f"the platform's database cannot be used: {cause}; nothing was stored",
                code="storage_unavailable",
                retry_after_s=5.0,
            ) from error
        raise
