"""Everything that a control plane does to its disk, in order: the database and the objects.

Beneath SQLite lies a file system of apsw's; of `os`, the functions by which objects are written are
wrapped. Each operation is written down as it ends, with its time on the monotonic clock, which
clients on the same machine share: so it is known what was promised before it.
"""

from __future__ import annotations

import os
import pickle
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

VFS = "recorded"


@dataclass(frozen=True)
class Op:
    """One operation: known, link, unlink, rename, mkdir, write, truncate, sync, sync_folder."""

    kind: str
    at: float
    """When it ended, in seconds of the monotonic clock."""
    path: str
    inode: int = 0
    """Of the file, in the order in which files were first seen; a rename does not change it."""
    offset: int = 0
    """Of a write; the size, of a truncate."""
    data: bytes = b""
    to: str = ""
    """Of a rename."""
    covers: int = 0
    """Of a sync: how many operations had ended when it began. It makes no later one durable."""


def read(path: Path) -> list[Op]:
    """The operations in their order."""
    return list(_read(path))


def _read(path: Path) -> Iterator[Op]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return


class Recorder:
    """Writes down in `path` what this process does."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._lock = threading.RLock()
        self._inodes: dict[str, int] = {}
        self._files_seen = 0
        self.number = 0
        """Operations so far."""

    def note(self, kind: str, path: str, **fields: Any) -> None:
        with self._lock:
            self.number += 1
            pickle.dump(Op(kind, time.monotonic(), path, **fields), self._file)
            self._file.flush()

    def inode(self, path: str, *, existed: bool) -> int:
        """Of the file that `path` names now."""
        with self._lock:
            if path not in self._inodes:
                self._files_seen += 1
                self._inodes[path] = self._files_seen
                self.note("known" if existed else "link", path, inode=self._files_seen)
            return self._inodes[path]

    def renamed(self, path: str, to: str) -> None:
        with self._lock:
            inode = self._inodes[to] = self._inodes.pop(path)
            self.note("rename", path, inode=inode, to=to)

    def unlinked(self, path: str) -> None:
        with self._lock:
            self._inodes.pop(path, None)
            self.note("unlink", path)


def _is_in(path: object, root: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(root)


# --- objects --------------------------------------------------------------------------------------


class WatchedOs:
    """Stands in for those functions of `os` that change what is beneath `root`.

    Who writes there by other means than `os.write` is not seen to.
    """

    def __init__(self, recorder: Recorder, root: Path) -> None:
        self._root = str(root)
        self._recorder = recorder
        self._files: dict[int, tuple[str, int]] = {}
        """The path and the inode of each open descriptor; a folder's inode is 0."""
        self._real: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        for name in ("open", "write", "fsync", "close", "replace", "unlink", "mkdir"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, name))

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        real = self._real["open"]
        if dir_fd is not None or not _is_in(path, self._root):
            return real(path, flags, mode, dir_fd=dir_fd)
        name = os.fspath(path)
        existed = os.path.exists(name)  # noqa: PTH110
        descriptor = real(path, flags, mode)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        inode = 0 if is_folder else self._recorder.inode(name, existed=existed)
        self._files[descriptor] = (name, inode)
        return descriptor

    def write(self, descriptor, data):
        written = self._real["write"](descriptor, data)
        if descriptor in self._files:
            path, inode = self._files[descriptor]
            offset = os.lseek(descriptor, 0, os.SEEK_CUR) - written
            kept = bytes(data[:written])
            self._recorder.note("write", path, inode=inode, offset=offset, data=kept)
        return written

    def fsync(self, descriptor):
        covers = self._recorder.number
        self._real["fsync"](descriptor)
        if descriptor in self._files:
            path, inode = self._files[descriptor]
            kind = "sync" if inode else "sync_folder"
            self._recorder.note(kind, path, inode=inode, covers=covers)

    def close(self, descriptor):
        self._files.pop(descriptor, None)
        self._real["close"](descriptor)

    def replace(self, source, target, **folders):
        self._real["replace"](source, target, **folders)
        if _is_in(source, self._root) and not folders.get("src_dir_fd"):
            self._recorder.inode(os.fspath(source), existed=True)
            self._recorder.renamed(os.fspath(source), os.fspath(target))

    def unlink(self, path, *, dir_fd=None):
        self._real["unlink"](path, dir_fd=dir_fd)
        if dir_fd is None and _is_in(path, self._root):
            self._recorder.unlinked(os.fspath(path))

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if dir_fd is None and _is_in(path, self._root):
            self._recorder.note("mkdir", os.fspath(path))


# --- the database ---------------------------------------------------------------------------------


class WatchedVfs(apsw.VFS):
    """SQLite's own file system, with each change beneath `root` written down."""

    def __init__(self, recorder: Recorder, root: Path) -> None:
        self._root = str(root)
        super().__init__(VFS, "unix")
        self._recorder = recorder

    def xOpen(self, name, flags):  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if not isinstance(path, str) or not _is_in(path, self._root):
            return apsw.VFSFile("unix", name, flags)
        existed = os.path.exists(path)  # noqa: PTH110
        return _WatchedFile(name, flags, path, existed, self._recorder)

    def xDelete(self, path, sync_folder):  # noqa: N802
        super().xDelete(path, sync_folder)
        self._recorder.unlinked(path)
        if sync_folder:
            folder = os.path.dirname(path)  # noqa: PTH120
            self._recorder.note("sync_folder", folder, covers=self._recorder.number)


class _WatchedFile(apsw.VFSFile):
    def __init__(self, name, flags, path: str, existed: bool, recorder: Recorder) -> None:
        super().__init__("unix", name, flags)
        self._path = path
        self._inode = recorder.inode(path, existed=existed)
        self._recorder = recorder

    def xWrite(self, data, offset):  # noqa: N802
        super().xWrite(data, offset)
        self._recorder.note("write", self._path, inode=self._inode, offset=offset, data=bytes(data))

    def xTruncate(self, size):  # noqa: N802
        super().xTruncate(size)
        self._recorder.note("truncate", self._path, inode=self._inode, offset=size)

    def xSync(self, flags):  # noqa: N802
        covers = self._recorder.number
        super().xSync(flags)
        self._recorder.note("sync", self._path, inode=self._inode, covers=covers)
