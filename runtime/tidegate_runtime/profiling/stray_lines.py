"""Keeps what torch's recorder says by itself out of a log of whole lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger(__name__)

_STDERR = 2
_CHUNK_BYTES = 1 << 16
_STRAY = (b"USDT:", b"ERROR: External init callback", b"INFO:", b"STAGE:", b"WARNING:")
"""How lines of Kineto begin, which writes past every logger."""


@contextmanager
def stray_lines_logged() -> Iterator[None]:
    """Log such lines, at debug level, when they come within the block.

    Standard error is a pipe meanwhile; what else comes through it, from whatever thread, is passed
    on as it is.
    """
    kept = os.dup(_STDERR)
    reads, writes = os.pipe()
    os.set_blocking(reads, False)  # a process forked meanwhile keeps the other end open
    os.dup2(writes, _STDERR)
    os.close(writes)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        said = _all_of(reads)
        os.close(reads)
        with open(_STDERR, "wb", closefd=False) as stderr:
            for line in said.splitlines(keepends=True):
                if line.startswith(_STRAY):
                    log.debug("%s", line.decode(errors="replace").rstrip())
                else:
                    stderr.write(line)


def _all_of(reads: int) -> bytes:
    found = b""
    with suppress(BlockingIOError):
        while part := os.read(reads, _CHUNK_BYTES):
            found += part
    return found
