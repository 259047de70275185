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
import time
import zlib
from dataclasses import dataclass

ADMIN_KEY_VARIABLE = "TIDEGATE_ADMIN_KEY"
"""Where a control plane is told, at its start, of an admin key that was made elsewhere."""
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_CHARACTERS = 43
CHECK_CHARACTERS = 6
ROW_PREFIX = "key_"
_ULID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID_CHARACTERS = 26
_SHAPE = re.compile(
    rf"(tg_([0-9a-z]{{{_ULID_CHARACTERS}}})_[0-9A-Za-z]{{{SECRET_CHARACTERS}}})"
    rf"([0-9A-Za-z]{{{CHECK_CHARACTERS}}})"
)


@dataclass(frozen=True)
class PresentedKey:
    """A key as a caller sent it, its checksum right."""

    key_id: str
    """The id of the row that would hold its digest."""
    text: str


def new_key() -> str:
    """A key for a row that does not exist yet: `ADMIN_KEY_VARIABLE` can tell of it."""
    ulid = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return new_secret(ROW_PREFIX + _digits(ulid, _ULID_ALPHABET, _ULID_CHARACTERS))


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


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), ALPHABET, CHECK_CHARACTERS)


def _digits(value: int, alphabet: str, count: int) -> str:
    """A number to the base of an alphabet, the highest digit first."""
    found = []
    for _ in range(count):
        value, index = divmod(value, len(alphabet))
        found.append(alphabet[index])
    return "".join(reversed(found))
