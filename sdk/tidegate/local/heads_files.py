"""The files of heads that guess next tokens, wherever they are: their names, and one digest."""

from __future__ import annotations

import hashlib

MANIFEST = "heads.json"
WEIGHTS = "heads.safetensors"
FORMAT = 1


def heads_digest(manifest: bytes) -> str:
    """The digest of heads, from their manifest alone: it has the digest of their weights.

    So it is the same in a directory, in S3 and on a hub.
    """
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
