"""What an API key looks like: `tg_<id>_<secret><checksum>`.

- id: the ULID of the key's row, so that one row is looked up and compared;
- secret: 43 base62 characters, 256 bits of chance;
- checksum: CRC-32 of all before it, as 6 base62 characters, so that a mistyped or cut key is told
  from a wrong one without asking the database, and scanners can find leaked ones
  (source: GitHub's token format).
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_CHARACTERS = 43
CHECK_CHARACTERS = 6
ROW_PREFIX = "key_"
_SHAPE = re.compile(
    rf"(tg_([0-9a-z]{{26}})_[0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CHECK_CHARACTERS}}})"
)


@dataclass(frozen=True)
class PresentedKey:
    """A key as a caller sent it, its checksum right."""

    key_id: str
    """The id of the row that would hold its digest."""
    text: str


def new_secret(key_id: str) -> str:
    """A new key for the row `key_id`."""
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARACTERS))
    body = f"tg_{key_id.removeprefix(ROW_PREFIX)}_{secret}"
    return body + _checksum(body)


def read_secret(text: str) -> PresentedKey | None:
    """The key in `text`; None when it is none, or was damaged on its way."""
    match = _SHAPE.fullmatch(text)
    if match is None or not hmac.compare_digest(_checksum(match[1]), match[3]):
        return None
    return PresentedKey(key_id=ROW_PREFIX + match[2], text=text)


def digest(text: str, pepper: bytes) -> str:
    """What is stored of a key: HMAC-SHA-256, hex."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def matches(text: str, stored: str, pepper: bytes) -> bool:
    """Whether `text` is the key that `stored` was made from, in constant time."""
    return hmac.compare_digest(digest(text, pepper), stored)


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    characters = []
    for _ in range(CHECK_CHARACTERS):
        value, index = divmod(value, len(ALPHABET))
        characters.append(ALPHABET[index])
    return "".join(reversed(characters))
