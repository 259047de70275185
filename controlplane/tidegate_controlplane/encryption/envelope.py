"""The shape of sealed bytes. Pure.

    offset  bytes
    0       8      magic, 89 54 47 53 45 41 4c 0a
    8       1      version, 1
    9       4      plain bytes of a chunk, big endian
    13      7      nonce prefix
    20      1      length of the key's id
    21      2      length of the wrapped data key
    23             key id in ASCII, wrapped data key
                   then chunks, each with its tag of 16 bytes; the last may be shorter, even empty

Each object has a data key of its own (AES-256), wrapped by a key that stays outside the store.
The chunks are STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015: "Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance"): AES-256-GCM under the nonce prefix ‖ number of the chunk
(4 bytes) ‖ 1 for the last chunk, else 0. So a chunk that is changed, moved, dropped or added is
seen, and so is an end that came too early. The associated data of every chunk is what the header
says of the chunks, and the object's name, which begins with its project: bytes moved to another
name do not open.

The key's id and the wrapped key are not in the associated data, so that wrapping the data key anew
leaves the chunks alone; the wrapped key is bound to the name by whoever wraps it.

The first byte is none that UTF-8 text begins with: no JSON body is ever taken for a sealed one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate_controlplane.encryption.errors import ObjectDamaged

MAGIC = b"\x89TGSEAL\n"
VERSION = 1
KEY_BYTES = 32
TAG_BYTES = 16
CHUNK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 4 * 1024 * 1024
"""A header that says more is damaged: it is what a reader holds at once."""

_FIXED = Struct(">8sBI7sBH")
_ABOUT_CHUNKS = Struct(">8sBI7s")
_NONCE = Struct(">7sI?")


@dataclass(frozen=True)
class Wrapped:
    """A data key as it is stored: which key wrapped it, and what came out."""

    key_id: str
    blob: bytes


@dataclass(frozen=True)
class Header:
    """What stands before the chunks."""

    wrapped: Wrapped
    prefix: bytes = field(default_factory=lambda: os.urandom(7))
    chunk_bytes: int = CHUNK_BYTES

    def pack(self) -> bytes:
        key_id = self.wrapped.key_id.encode("ascii")
        sizes = len(key_id), len(self.wrapped.blob)
        fixed = _FIXED.pack(MAGIC, VERSION, self.chunk_bytes, self.prefix, *sizes)
        return fixed + key_id + self.wrapped.blob

    @property
    def frame_bytes(self) -> int:
        """Of a whole chunk as it is stored."""
        return self.chunk_bytes + TAG_BYTES

    def with_key(self, wrapped: Wrapped) -> Header:
        """The same chunks, under a data key that was wrapped anew."""
        return replace(self, wrapped=wrapped)


def is_sealed(stored: bytes) -> bool:
    """Whether `stored`, or what it is the beginning of, is sealed."""
    return stored.startswith(MAGIC)


def parse(stored: bytes, name: str) -> tuple[Header, int] | None:
    """The header that sealed bytes begin with, and its length; None when more of it must come.

    Raises ObjectDamaged.
    """
    if len(stored) < _FIXED.size:
        return None
    magic, version, chunk_bytes, prefix, id_bytes, wrapped_bytes = _FIXED.unpack_from(stored)
    if magic != MAGIC or not 0 < chunk_bytes <= MAX_CHUNK_BYTES:
        raise damaged(name, "its header cannot be read")
    if version != VERSION:
        raise damaged(name, f"its header has version {version}, this process reads {VERSION}")
    end = _FIXED.size + id_bytes + wrapped_bytes
    if len(stored) < end:
        return None
    wrapped_at = _FIXED.size + id_bytes
    try:
        key_id = stored[_FIXED.size : wrapped_at].decode("ascii")
    except UnicodeDecodeError:
        raise damaged(name, "its header cannot be read") from None
    return Header(Wrapped(key_id, stored[wrapped_at:end]), prefix, chunk_bytes), end


class Chunks:
    """Seals and opens the chunks of one object."""

    def __init__(self, data_key: bytes, header: Header, name: str) -> None:
        self._aead = AESGCM(data_key)
        self._prefix = header.prefix
        self._name = name
        about = _ABOUT_CHUNKS.pack(MAGIC, VERSION, header.chunk_bytes, header.prefix)
        self._bound = about + name.encode()

    def seal(self, number: int, plain: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(_NONCE.pack(self._prefix, number, last), plain, self._bound)

    def open(self, number: int, frame: bytes, *, last: bool) -> bytes:
        """Raises ObjectDamaged unless it is the chunk of this number, whole, of this name."""
        try:
            return self._aead.decrypt(_NONCE.pack(self._prefix, number, last), frame, self._bound)
        except (InvalidTag, ValueError):
            raise damaged(self._name, f"chunk {number} is not what was sealed") from None


def damaged(name: str, why: str) -> ObjectDamaged:
    return ObjectDamaged(
        f"{name!r} does not open: {why}; it was changed, cut or moved after it was written; "
        "restore it from a backup"
    )
