"""The object store's errors, as answers to a caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tidegate_controlplane.domain.retention import may_insert
from tidegate_controlplane.encryption.errors import ObjectDamaged
from tidegate_controlplane.errors import TooLarge, Unavailable
from tidegate_controlplane.objects.base import ObjectStoreError, ObjectTooLarge, StoreFull


def check_still_there(stored_at: float, now: float, grace_s: float) -> None:
    """Before the row of an object is inserted; both in monotonic seconds.

    Raises Unavailable when it was stored so long ago that it may count as an orphan.
    """
    if not may_insert(stored_at, now, grace_s):
        raise Unavailable(
            "storing the body took too long; nothing was accepted",
            code="storage_too_slow",
            retry_after_s=5.0,
        )


@contextmanager
def answering_for_storage() -> Iterator[None]:
    """Raise TooLarge or Unavailable instead of what the object store raises."""
    try:
        yield
    except ObjectTooLarge as error:
        raise TooLarge(f"too large: {error}") from error
    except StoreFull as error:
        raise Unavailable(
            "the platform's storage is full; nothing was stored",
            code="storage_full",
            retry_after_s=60.0,
        ) from error
    except ObjectDamaged as error:
        raise Unavailable(
            f"what the platform stored does not open: {error}", code="storage_damaged"
        ) from error
    except ObjectStoreError as error:
        raise Unavailable(
            f"the platform's storage cannot be used: {error}",
            code="storage_unavailable",
            retry_after_s=5.0,
        ) from error
