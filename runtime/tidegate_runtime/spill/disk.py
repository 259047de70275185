"""Records on disk: a file for each block, in a directory that replicas of one artifact share.

Nothing is locked and nothing is synced. A file appears by rename, so it is whole unless the machine
went down, and its checksum tells; whoever reads takes a file that is gone or damaged for one that
never was. Files are for their owner only.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate_runtime.engine.block_manager import BlockHash

log = logging.getLogger(__name__)

RETRY_S = 60.0
_HEADER = struct.Struct("<4s16sQI")
"""A word, the block's hash, the record's bytes, the record's CRC-32."""
_WORD = b"TGKV"
_SUFFIX = ".kv"
_PARTIAL = ".partial"
_NEW = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
_ABANDONED_S = 600.0
_LEASE = "held"
_SLACK = 16
"""A sixteenth of the budget is freed at a time, so that the directory is rarely listed."""
_FREE_SHARE = 20
_MOST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class _File:
    used_s: float
    bytes: int
    path: Path


class DiskTier:
    """The records of one kind, under `root/kind`, within `limit_bytes`.

    What other kinds left in `root` counts too, unless a living process holds it, so that models
    which are served no more make room. Used by one thread. Raises OSError when the directory cannot
    be made.
    """

    def __init__(
        self, root: Path, kind: str, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = root
        self._home = root / kind
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._silent_until_s = 0.0
        self._written_bytes = 0
        for folder in (root, self._home):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held until the process ends, however it does.
        self._lease = os.open(self._home / _LEASE, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lease, fcntl.LOCK_SH)
        self.trim()

    def __contains__(self, key: BlockHash) -> bool:
        return self._path(key).exists()

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._lease)

    def save(self, key: BlockHash, record: bytes) -> bool:
        """Write a record; False when the disk takes none at the moment."""
        if self._clock() < self._silent_until_s:
            return False
        try:
            self._check_room(len(record))
            self._write(key, record)
        except OSError as error:
            self._silent_until_s = self._clock() + RETRY_S
            log.warning(
                "cannot write %s (%s); blocks are not spilled to disk for %g s",
                self._home,
                error.strerror or error,
                RETRY_S,
            )
            return False
        self._written_bytes += _HEADER.size + len(record)
        if self._written_bytes * _SLACK >= self._limit_bytes:
            self.trim()
        return True

    def load(self, key: BlockHash) -> bytes | None:
        """A record; None when it is not here or not whole, and then it is removed."""
        path = self._path(key)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        record = raw[_HEADER.size :]
        if raw[: _HEADER.size] != _header(key, record):
            log.warning("%s is damaged; it is removed, and its tokens are computed again", path)
            self.drop(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return record

    def drop(self, key: BlockHash) -> None:
        """Remove a record."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove what was unused for longest, until the rest is within the limit."""
        self._written_bytes = 0
        files = [*_files(self._home), *self._left_by_others()]
        excess = sum(file.bytes for file in files) - self._limit_bytes * (_SLACK - 1) // _SLACK
        for file in sorted(files, key=lambda item: item.used_s):
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                file.path.unlink(missing_ok=True)
            excess -= file.bytes

    def _write(self, key: BlockHash, record: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}{_PARTIAL}")
        try:
            with os.fdopen(os.open(partial, _NEW, 0o600), "wb", buffering=0) as file:
                header = _header(key, record)
                if os.writev(file.fileno(), (header, record)) != len(header) + len(record):
                    raise OSError("the disk took a part of it")
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _check_room(self, size: int) -> None:
        """Raises OSError before the disk is so full that others suffer."""
        disk = os.statvfs(self._home)
        kept = min(_MOST_FREE_BYTES, disk.f_blocks * disk.f_frsize // _FREE_SHARE)
        free = disk.f_bavail * disk.f_frsize
        if free < kept + size:
            raise OSError(f"{free} bytes are free and {kept} are left to others")

    def _left_by_others(self) -> Iterator[_File]:
        for folder in self._root.iterdir():
            if folder != self._home and not _is_held(folder):
                yield from _files(folder)

    def _path(self, key: BlockHash) -> Path:
        name = key.hex()
        return self._home / name[:2] / f"{name}{_SUFFIX}"


def _header(key: BlockHash, record: bytes) -> bytes:
    return _HEADER.pack(_WORD, key, len(record), zlib.crc32(record))


def _files(home: Path) -> Iterator[_File]:
    """Every record under a directory; what a dead writer left half done is removed."""
    for path in home.glob("??/*"):
        with contextlib.suppress(OSError):
            found = path.stat()
            if path.suffix == _SUFFIX:
                yield _File(found.st_mtime, found.st_size, path)
            elif time.time() - found.st_mtime > _ABANDONED_S:
                path.unlink()


def _is_held(home: Path) -> bool:
    """Whether a living process uses a directory."""
    try:
        lease = os.open(home / _LEASE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lease)
