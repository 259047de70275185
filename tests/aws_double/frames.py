"""Writes the frames of Amazon's event streams, which botocore can only read."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Mapping

STRING = 7


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame: two lengths and their checksum, headers, payload, a checksum of all."""
    packed = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", STRING, len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    head = prelude + struct.pack("!I", crc32(prelude)) + packed + payload
    return head + struct.pack("!I", crc32(head))


def part(payload: bytes) -> bytes:
    """Some bytes of the model's answer."""
    return frame(
        {
            ":message-type": "event",
            ":event-type": "PayloadPart",
            ":content-type": "application/octet-stream",
        },
        payload,
    )


def exception(kind: str, payload: bytes) -> bytes:
    """Why there is no more."""
    return frame({":message-type": "exception", ":exception-type": kind}, payload)
