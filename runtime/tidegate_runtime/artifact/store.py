"""The cache of artifacts: named by what they were built from, shared by replicas, of bounded size.

An artifact that a replica serves is held by a shared lock on its manifest, which the kernel drops
when the process ends, however it does. Pruning takes the exclusive lock first, so it never removes
one that is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tidegate_runtime.artifact.cache import publish_once
from tidegate_runtime.artifact.manifest import FORMAT, MANIFEST, PACKING
from tidegate_runtime.artifact.open import Artifact, open_artifact, read_manifest
from tidegate_runtime.artifact.warm import Shelf
from tidegate_runtime.errors import ModelRefused

log = logging.getLogger(__name__)

FOLDER = "artifacts"
LIMIT_BYTES = 64 * 1024**3
_DOOMED = ".doomed"


def artifact_key(digest: str, precision: str) -> str:
    """The name of what this version builds from a model: equal inputs make equal artifacts."""
    made_by = {
        "digest": digest,
        "precision": precision,
        "format": FORMAT,
        "packing": PACKING,
        "transformers": version("transformers"),
    }
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Stored:
    """One artifact of the cache. `used_s` is when it was last opened, in seconds since 1970."""

    key: str
    path: Path
    size_bytes: int
    used_s: float
    held: bool


@dataclass(frozen=True)
class Held:
    """An open artifact that nobody prunes until this is closed, or its process ends."""

    artifact: Artifact
    _lock: int

    def close(self) -> None:
        """Let go of it."""
        os.close(self._lock)


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts in a directory. Several processes may use it at once."""

    cache_dir: Path
    limit_bytes: int = LIMIT_BYTES

    def path(self, key: str) -> Path:
        return self.cache_dir / FOLDER / key

    def publish(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The artifact's directory, filled by one process while others wait; old ones make room."""
        path = publish_once(self.cache_dir / FOLDER, key, fill)
        self.prune(keep=key)
        return path

    def open(self, key: str, shelf: Shelf | None = None) -> Held | None:
        """Hold and verify an artifact; None when it is not here.

        A damaged one is removed, so that it is built again, and None too.
        """
        try:
            return hold(self.path(key), shelf)
        except FileNotFoundError:
            return None
        except ModelRefused as error:
            if error.reason != "DamagedArtifact":
                raise
            log.warning("%s", error.message)
            _discard(self.path(key))
            return None

    def items(self) -> list[Stored]:
        """Every artifact, the one used last first."""
        folder = self.cache_dir / FOLDER
        paths = [
            path for path in folder.glob("*") if not path.suffix and (path / MANIFEST).is_file()
        ]
        found = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found.append(_stored(path))
        return sorted(found, key=lambda item: -item.used_s)

    def prune(self, *, limit_bytes: int | None = None, keep: str | None = None) -> list[Stored]:
        """Remove what was unused for longest, until the rest is within the limit; returns those.

        What is held, and `keep`, stays.
        """
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        items = self.items()
        total = sum(item.size_bytes for item in items)
        removed = []
        for item in reversed(items):
            if total <= limit:
                break
            if item.key != keep and self._remove(item.path):
                removed.append(item)
                total -= item.size_bytes
        for leftover in (self.cache_dir / FOLDER).glob(f"*{_DOOMED}"):
            shutil.rmtree(leftover, ignore_errors=True)
        return removed

    def _remove(self, path: Path) -> bool:
        """Remove an artifact, unless somebody holds it."""
        try:
            with _locked(path / MANIFEST, fcntl.LOCK_EX):
                _discard(path)
        except (BlockingIOError, FileNotFoundError):
            return False
        return True


def _discard(path: Path) -> None:
    """Take an artifact away at once, whole; who has it mapped keeps its pages."""
    doomed = path.with_name(f"{path.name}.{os.getpid()}{_DOOMED}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def hold(path: Path, shelf: Shelf | None = None) -> Held:
    """Hold the artifact at `path`, and verify it unless it is on the shelf.

    Raises FileNotFoundError, ModelRefused.
    """
    manifest = path / MANIFEST
    lock = os.open(manifest, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.fstat(lock).st_ino != manifest.stat().st_ino:
            raise FileNotFoundError(manifest)
        with contextlib.suppress(OSError):  # a read-only place keeps no times
            os.utime(manifest)
        warm = None if shelf is None else shelf.find(path)
        return Held(warm.artifact if warm else open_artifact(path), lock)
    except BaseException:
        os.close(lock)
        raise


def _stored(path: Path) -> Stored:
    held = False
    try:
        with _locked(path / MANIFEST, fcntl.LOCK_EX):
            pass
    except BlockingIOError:
        held = True
    size = sum(item.stat().st_size for item in path.iterdir())
    return Stored(path.name, path, size, (path / MANIFEST).stat().st_mtime, held)


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Lock a file or raise BlockingIOError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def describe(item: Stored) -> str:
    """One line on what an artifact is."""
    manifest = read_manifest(item.path)
    return f"{manifest.precision} of {manifest.source.location}"
