"""What is stored of an API key in place of its secret; `protocol.api_keys` has its shape."""

from __future__ import annotations

import hmac


def digest(text: str, pepper: bytes) -> str:
    """What is stored of a key: HMAC-SHA-256, hex."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def matches(text: str, stored: str, pepper: bytes) -> bool:
    """Whether `text` is the key that `stored` was made from, in constant time."""
    return hmac.compare_digest(digest(text, pepper), stored)
