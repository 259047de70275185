"""The token that a replica wants, made from the pepper and the replica's id.

Every control plane of a platform has the pepper, so each can make the token of any replica, and it
is stored nowhere. A replica that lost its own token has lost no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac


def replica_token(pepper: bytes, replica_id: str) -> str:
    """43 characters; HMAC-SHA-256 with a purpose in front, so that it is no digest of a key."""
    digest = hmac.digest(pepper, b"replica token\0" + replica_id.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
