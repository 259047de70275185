"""A file to upload, from its path or already open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

from tidegate.errors import ConfigurationError


@contextmanager
def readable(
    source: str | PathLike[str] | BinaryIO, filename: str | None
) -> Iterator[tuple[BinaryIO, str]]:
    """The open file and its name; closed again only when it was opened here.

    Raises ConfigurationError when the path cannot be read.
    """
    if not isinstance(source, str | PathLike):
        yield source, filename or Path(str(getattr(source, "name", "upload.jsonl"))).name
        return
    path = Path(fspath(source)).expanduser()
    with open_or_explain(path) as file:
        yield file, filename or path.name


def open_or_explain(path: Path) -> BinaryIO:
    """Open a file for reading; raises ConfigurationError that names it."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be read: {error.strerror or error}"
        ) from error
