"""The secret that key digests are made with: it lives beside the database, never in it."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from tidegate_controlplane.durable import sync
from tidegate_controlplane.errors import StartError

PEPPER_BYTES = 32


def load_pepper(path: Path) -> bytes:
    """The pepper in `path`, made there (whole, for the owner only) when there is none."""
    with suppress(FileExistsError):
        if not path.exists():
            write_pepper(path, secrets.token_bytes(PEPPER_BYTES))
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise StartError(
            f"{path} holds {len(pepper)} bytes instead of {PEPPER_BYTES}; restore it from a backup "
            "(without it no API key works), or delete it to begin with new keys"
        )
    return pepper


def write_pepper(path: Path, pepper: bytes) -> None:
    """Write aside, then link: another process sees a whole file or none, and the first one wins.

    Raises FileExistsError when there is one.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pepper)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
        sync(path.parent)
    finally:
        draft.unlink()


def fingerprint(pepper: bytes) -> str:
    """Tells two peppers apart, and says nothing else of them."""
    return hmac.digest(pepper, b"fingerprint", "sha256").hex()[:16]
