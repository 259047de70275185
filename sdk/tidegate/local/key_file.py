"""A new key in a key file."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from tidegate.errors import LocalError

KEY_BYTES = 32


def add_key(path: Path) -> int:
    """Put a new key at the end of `path`, made if absent; how many keys it holds then.

    The file is replaced at once, so that a process that reads it sees all of it. Raises LocalError.
    """
    try:
        former = path.read_text().splitlines() if path.exists() else []
        lines = [*former, base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()]
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"{path}: no key can be written there: {error.strerror}") from error
    return sum(bool(line.strip()) for line in lines)
