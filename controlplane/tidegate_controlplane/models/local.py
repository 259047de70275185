"""A model on this machine: a directory, or one GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tidegate.local.model_files import file_fingerprint, model_file_names
from tidegate_controlplane.models.source import SourceError


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
        self._path = path
        self._root = path if is_directory else path.parent

    def listing(self) -> Mapping[str, int]:
        try:
            return {
                name: (self._root / name).stat().st_size for name in model_file_names(self._path)
            }
        except OSError as error:
            raise SourceError(f"cannot read {error.filename!r}: {error.strerror}") from error

    def fingerprint(self, name: str) -> str:
        try:
            return file_fingerprint(self._root / name)
        except OSError as error:
            raise SourceError(f"cannot read {name!r}: {error.strerror}") from error

    def read(self, name: str, start: int, length: int) -> bytes:
        try:
            with (self._root / name).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise SourceError(f"cannot read {name!r}: {error.strerror}") from error
