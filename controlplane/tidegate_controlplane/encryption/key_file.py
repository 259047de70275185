"""Keys in a file: one a line, 32 bytes in base64, the newest last.

A key's id is a digest of it, so that one id can never mean two keys, and a wrong file is told from
damaged data.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate_controlplane.encryption.envelope import KEY_BYTES, Wrapped, damaged
from tidegate_controlplane.encryption.keyring import DataKey
from tidegate_controlplane.errors import StartError

_NONCE_BYTES = 12
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class FileKeys:
    """A KeySource over the keys of a file.

    A data key is wrapped by AES-256-GCM under a random nonce, so one key may wrap 2^32 of them
    (NIST SP 800-38D §8.3): add a new one long before.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._ids = tuple(self._keys)

    @property
    def key_ids(self) -> Sequence[str]:
        return self._ids

    async def make(self, name: str) -> DataKey:
        plain = os.urandom(KEY_BYTES)
        return DataKey(plain, await self.wrap(plain, name))

    async def wrap(self, data_key: bytes, name: str) -> Wrapped:
        newest, nonce = self._ids[-1], os.urandom(_NONCE_BYTES)
        blob = AESGCM(self._keys[newest]).encrypt(nonce, data_key, name.encode())
        return Wrapped(newest, nonce + blob)

    async def unwrap(self, wrapped: Wrapped, name: str) -> bytes:
        nonce, blob = wrapped.blob[:_NONCE_BYTES], wrapped.blob[_NONCE_BYTES:]
        try:
            return AESGCM(self._keys[wrapped.key_id]).decrypt(nonce, blob, name.encode())
        except (InvalidTag, ValueError):
            raise damaged(name, "its key was not wrapped for it") from None


def key_id(key: bytes) -> str:
    """`file:` and 16 hex digits of a digest."""
    return f"file:{hashlib.sha256(b'tidegate key id' + key).hexdigest()[:16]}"


def read_keys(path: Path) -> list[bytes]:
    """The keys of a file, the newest last.

    Raises StartError when it cannot be read, when anyone but its owner may read it, and naming the
    line that is no key.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"encryption key file {path}: cannot be read ({error}); make one with: "
            f"tidegate encryption add-key {path}"
        ) from error
    if mode & _OTHERS:
        raise StartError(
            f"encryption key file {path}: others may read it (mode {stat.S_IMODE(mode):o}); "
            f"run: chmod 600 {path}"
        )
    keys = [_key(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not keys:
        raise StartError(
            f"encryption key file {path}: holds no key; run: tidegate encryption add-key {path}"
        )
    return keys


def _key(path: Path, number: int, line: str) -> bytes:
    try:
        key = base64.b64decode(line.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StartError(
            f"encryption key file {path}: line {number} is not {KEY_BYTES} bytes in base64"
        )
    return key
