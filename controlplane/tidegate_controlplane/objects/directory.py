"""Objects as files of one directory.

A writer fills a temporary file in the same file system, then: fsync the file, rename it to its
name, fsync the directory. A power loss leaves the old object, the new one, or none; never a part.
What a killed writer left in the temporary folder is removed at a start, once nobody has written to
it for an hour: other processes may be writing there now.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from tidegate_controlplane.durable import sync
from tidegate_controlplane.objects.base import (
    LIST_PAGE,
    PIECE_BYTES,
    Chunks,
    Listed,
    ObjectNotFound,
    Stored,
    StoreFull,
    StoreUnavailable,
    check_key,
    pieces,
)
from tidegate_controlplane.objects.threads import in_thread

P = ParamSpec("P")
T = TypeVar("T")

LEFT_S = 3600.0
"""Since the last write, after which an unfinished object counts as left behind."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TRIES = 10
"""A deletion takes a folder away as soon as it is empty, so a writer may have to make it again."""


class DirectoryStore:
    """An ObjectStore in `root`; several processes may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / ".unfinished"  # no key begins with a dot
        self._unfinished.mkdir(parents=True, exist_ok=True)
        self._drop(time.time() - LEFT_S)

    async def put(self, key: str, chunks: Chunks, max_bytes: int | None = None) -> Stored:
        target = self._path(key)
        digest = hashlib.sha256()
        size = 0
        file = _Unfinished(key, self._unfinished)
        try:
            async for piece in pieces(chunks, PIECE_BYTES, max_bytes):
                await _run(key, file.write, piece)
                digest.update(piece)
                size += len(piece)
            await _run(key, file.publish, target)
        finally:
            await in_thread(file.close)
        return Stored(size, digest.hexdigest())

    async def get(self, key: str, start: int = 0) -> AsyncGenerator[bytes]:
        file = _Reader(self._path(key))
        try:
            await _run(key, file.open, start)
            while piece := await _run(key, file.read):
                yield piece
        finally:
            file.close()

    async def read(self, key: str) -> bytes:
        return await _run(key, self._path(key).read_bytes)

    async def delete(self, key: str) -> None:
        await _run(key, self._unlink, self._path(key))

    async def exists(self, key: str) -> bool:
        return await _run(key, self._path(key).is_file)

    async def list(self, prefix: str = "") -> AsyncGenerator[Listed]:
        found = self._walk(self._root, prefix)
        while page := await _run(prefix, _page, found):
            for listed in page:
                yield listed

    async def drop_unfinished(self, older_than_s: float) -> int:
        return await _run(".unfinished", self._drop, time.time() - older_than_s)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _unlink(self, path: Path) -> None:
        """Remove it, and the folders that it leaves empty."""
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:
                return  # something is in it, or another deletion was faster

    def _walk(self, folder: Path, prefix: str) -> Iterator[Listed]:
        """Only into folders where such a key can be."""
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                key = str(Path(entry.path).relative_to(self._root))
                if entry.is_dir(follow_symlinks=False):
                    name = f"{key}/"
                    if entry.name != self._unfinished.name and (
                        name.startswith(prefix) or prefix.startswith(name)
                    ):
                        yield from self._walk(Path(entry.path), prefix)
                elif key.startswith(prefix):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        moment = datetime.fromtimestamp(status.st_mtime, UTC)
                        yield Listed(key, status.st_size, moment)

    def _drop(self, before: float) -> int:
        """Files in the temporary folder that nobody wrote to since (unix seconds)."""
        number = 0
        for path in self._unfinished.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    number += 1
        return number


def _page(found: Iterator[Listed]) -> list[Listed]:
    return list(islice(found, LIST_PAGE))


class _Reader:
    """A file that is closed even when a cancellation came while it was being opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedReader | None = None

    def open(self, start: int) -> None:
        self._file = self._path.open("rb")
        self._file.seek(start)

    def read(self) -> bytes:
        return self._file.read(PIECE_BYTES) if self._file else b""

    def close(self) -> None:
        if self._file:
            self._file.close()


class _Unfinished:
    """A temporary file that becomes an object, or nothing."""

    def __init__(self, key: str, folder: Path) -> None:
        with _said_plainly(key):
            self._fd, name = tempfile.mkstemp(dir=folder)
        self._path = Path(name)

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            # failpoint object.before_write
            rest = rest[os.write(self._fd, rest) :]

    def publish(self, target: Path) -> None:
        # failpoint object.before_fsync
        os.fsync(self._fd)
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                self._take_name(target)
                return
        self._take_name(target)

    def _take_name(self, target: Path) -> None:
        _make_folder(target.parent)
        # failpoint object.before_rename
        self._path.replace(target)
        # failpoint object.before_folder_fsync
        sync(target.parent)
        # failpoint object.published

    def close(self) -> None:
        """Also removes it, unless it was published."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create it with its parents, each durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    # failpoint object.folder_made
    sync(folder.parent)


async def _run(key: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with _said_plainly(key):
        return await in_thread(call, *args, **kwargs)


@contextmanager
def _said_plainly(key: str) -> Iterator[None]:
    """Turn the operating system's errors into the store's."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(f"there is no object {key!r}") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(
                f"no space is left to store {key!r}; free some and try again"
            ) from error
        raise StoreUnavailable(f"object {key!r}: {error.strerror}") from error
