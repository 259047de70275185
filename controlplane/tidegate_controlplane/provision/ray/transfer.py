"""Directories that travel to a node in pieces by the object store, and are there whole or not.

Each piece is an argument of a call to the node's agent; a large argument lies in the store until it
is written. So a model of any size takes room for `WINDOW` pieces there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.local import heads_files
from tidegate.local.model_files import local_digest, model_file_names
from tidegate_controlplane.durable import sync

PIECE_BYTES = 16 * 1024 * 1024
WINDOW = 4
"""Pieces under way at once."""
MANIFEST = "manifest.json"
ARTIFACTS: Final = "artifacts"
SOURCES: Final = "sources"
HEADS: Final = "heads"
ARRIVING = ".arriving"

Submit = Callable[[str, int, bytes], Awaitable[None]]
"""Sends a piece of a file, by the file's name and the piece's offset; answered once it is written.
It is called on a thread, and awaited on the event loop."""


@dataclass(frozen=True)
class Item:
    """A file of a directory. The time goes with it: a large source is fingerprinted by it."""

    name: str
    size_bytes: int
    mtime_ns: int


class Damaged(Exception):
    """What arrived is not what was sent for; the message says how."""


def items_of(root: Path, names: Sequence[str]) -> list[Item]:
    """What `send` sends. Raises OSError."""
    stats = [(name, (root / name).stat()) for name in names]
    return [Item(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def source_items(path: Path) -> list[Item]:
    """The files of a model's source on this machine. Raises OSError."""
    return items_of(root_of(path), model_file_names(path))


def heads_items(path: Path) -> list[Item]:
    """The files of heads on this machine. Raises OSError."""
    return items_of(path, [heads_files.MANIFEST, heads_files.WEIGHTS])


def root_of(path: Path) -> Path:
    """The directory that the names of a source's files are relative to."""
    return path.parent if path.is_file() else path


async def send(root: Path, items: Sequence[Item], submit: Submit) -> int:
    """Send every byte of `items`; returns how many. Raises OSError, and what `submit` raises."""
    room = asyncio.Semaphore(WINDOW)

    async def piece(item: Item, offset: int) -> None:
        async with room:
            content = await asyncio.to_thread(_read, root / item.name, offset)
            await (await asyncio.to_thread(submit, item.name, offset, content))

    async with asyncio.TaskGroup() as group:
        for item in items:
            for offset in range(0, item.size_bytes, PIECE_BYTES):
                group.create_task(piece(item, offset))
    return sum(item.size_bytes for item in items)


class Arrival:
    """A directory that is arriving under `folder`, until it is whole and gets its name."""

    def __init__(self, folder: Path, key: str, items: Sequence[Item]) -> None:
        """Raises OSError."""
        self.final = folder / key
        self._items = items
        self._draft = folder / (key + ARRIVING)
        shutil.rmtree(self._draft, ignore_errors=True)
        for item in items:
            path = self._draft / item.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def write(self, name: str, offset: int, content: bytes) -> None:
        """Take one piece; pieces come in any order. Raises OSError."""
        descriptor = os.open(self._draft / name, os.O_WRONLY)
        try:
            while content:
                written = os.pwrite(descriptor, content, offset)
                content, offset = content[written:], offset + written
        finally:
            os.close(descriptor)

    def finish(self, check: Callable[[Path], None]) -> Path:
        """Give it its name, once it is on disk and `check` of its path raised nothing.

        Raises Damaged and OSError, and drops it then.
        """
        try:
            for item in self._items:
                path = self._draft / item.name
                sync(path)
                os.utime(path, ns=(item.mtime_ns, item.mtime_ns))
            check(self._draft)
            if not self.final.exists():
                self._draft.rename(self.final)
                sync(self.final.parent)
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)
        return self.final


def check_artifact(path: Path, digest: str, precision: str) -> None:
    """Compare an artifact with its own manifest, and that with what was wanted. Raises Damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        found = manifest["source"]["digest"], manifest["precision"]
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path.name}: no readable {MANIFEST}: {error}") from error
    if found != (digest, precision):
        raise Damaged(f"{path.name}: built from {found[0]} in {found[1]}, not as wanted")
    for name, sha256 in files.items():
        try:
            with (path / name).open("rb") as file:
                seen = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"{path.name}: {name}: {error.strerror}") from error
        if seen != sha256:
            raise Damaged(f"{path.name}: {name} has the digest {seen}, not {sha256}")


def check_source(path: Path, digest: str) -> None:
    """Compare a source with its model's digest. `path` is a directory or a file. Raises Damaged."""
    found = local_digest(path)
    if found != digest:
        raise Damaged(f"the source arrived with the digest {found}, not {digest}")


def check_heads(path: Path, digest: str) -> None:
    """Compare heads with their plan's digest, and their weights with their manifest's.

    Raises Damaged.
    """
    try:
        manifest = (path / heads_files.MANIFEST).read_bytes()
        wanted = json.loads(manifest)["file"]["sha256"]
        with (path / heads_files.WEIGHTS).open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"the heads arrived and cannot be read: {error}") from error
    if (found := heads_files.heads_digest(manifest)) != digest:
        raise Damaged(f"the heads arrived with the digest {found}, not {digest}")
    if seen != wanted:
        raise Damaged(f"{heads_files.WEIGHTS} arrived with the digest {seen}, not {wanted}")


def forget_arrivals(cache: Path) -> None:
    """Delete what an earlier process left half arrived."""
    for folder in (ARTIFACTS, SOURCES, HEADS):
        for path in (cache / folder).glob(f"*{ARRIVING}"):
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)
