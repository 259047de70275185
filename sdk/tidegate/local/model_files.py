"""The files of a model on this machine: which they are, and a fingerprint of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tidegate.spec.source import model_digest

WHOLE_BYTES = 1024**3
"""Files up to this size are fingerprinted by their content, larger ones by their ends and mtime."""
END_BYTES = 1024**2


def model_file_names(path: Path) -> list[str]:
    """The model's files relative to its root: those there and in folders right under it.

    For a path that is a file, itself alone. Raises OSError.
    """
    if path.is_file():
        return [path.name]
    found = [item for item in path.iterdir() if item.is_file()]
    if any(item.name == "config.json" for item in found):
        found += [item for item in path.glob("[!.]*/*") if item.is_file()]
    return sorted(str(item.relative_to(path)) for item in found)


def file_fingerprint(path: Path) -> str:
    """A text that changes when the file's content does. Raises OSError."""
    stat = path.stat()
    with path.open("rb") as file:
        if stat.st_size <= WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(file.read(END_BYTES))
        file.seek(-END_BYTES, os.SEEK_END)
        digest.update(file.read(END_BYTES))
        digest.update(str(stat.st_mtime_ns).encode())
    return digest.hexdigest()


def local_digest(path: Path) -> str:
    """The digest of the model at `path`, a directory or a file. Raises OSError."""
    root = path.parent if path.is_file() else path

    def files() -> Iterator[tuple[str, int, str]]:
        for name in model_file_names(path):
            item = root / name
            yield name, item.stat().st_size, file_fingerprint(item)

    return model_digest(files())
