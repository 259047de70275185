"""A model on this machine: a directory, or one GGUF file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tidegate_controlplane.models.source import SourceError

WHOLE_BYTES = 1024**3
"""Files up to this size are fingerprinted by their content, larger ones by their ends and mtime."""
END_BYTES = 1024**2


class LocalFiles:
    """Implements `ModelFiles` for a path."""

    revision = None

    def __init__(self, location: str) -> None:
        if not location.startswith("/"):
            raise SourceError(f"{location!r} is a relative path; give an absolute one")
        # The functions of os.path, other than those of Path, answer False for any odd path.
        is_directory, is_file = os.path.isdir(location), os.path.isfile(location)  # noqa: PTH112, PTH113
        if not (is_directory or os.path.exists(location)):  # noqa: PTH110
            raise SourceError(
                f"{location!r} does not exist; give an existing directory or .gguf file, "
                "or s3://… or hf://…"
            )
        path = Path(location)
        if not is_directory and not (is_file and path.suffix.lower() == ".gguf"):
            raise SourceError(
                f"{location!r} is not a model: it is neither a directory nor a .gguf file"
            )
        self._root = path if is_directory else path.parent
        self._only = None if is_directory else path.name

    def listing(self) -> Mapping[str, int]:
        try:
            return {name: (self._root / name).stat().st_size for name in self._names()}
        except OSError as error:
            raise SourceError(f"cannot read {error.filename!r}: {error.strerror}") from error

    def fingerprint(self, name: str) -> str:
        try:
            return _fingerprint(self._root / name)
        except OSError as error:
            raise SourceError(f"cannot read {name!r}: {error.strerror}") from error

    def read(self, name: str, start: int, length: int) -> bytes:
        try:
            with (self._root / name).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise SourceError(f"cannot read {name!r}: {error.strerror}") from error

    def _names(self) -> list[str]:
        """The files of a model lie in its root and in folders right under it, never deeper."""
        if self._only:
            return [self._only]
        found = [path for path in self._root.iterdir() if path.is_file()]
        if any(path.name == "config.json" for path in found):
            found += [path for path in self._root.glob("[!.]*/*") if path.is_file()]
        return sorted(str(path.relative_to(self._root)) for path in found)


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if stat.st_size <= WHOLE_BYTES:
            while chunk := file.read(END_BYTES):
                digest.update(chunk)
        else:
            digest.update(file.read(END_BYTES))
            file.seek(-END_BYTES, os.SEEK_END)
            digest.update(file.read(END_BYTES))
            digest.update(str(stat.st_mtime_ns).encode())
    return digest.hexdigest()
