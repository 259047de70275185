"""Text files, plain or compressed (`.gz`)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from tidegate.errors import TableError


@contextmanager
def opened(path: Path, compressed: bool) -> Iterator[TextIO]:
    """The text of a file. What cannot be read raises TableError with the file's name."""
    try:
        with path.open("rb") as raw:
            plain = gzip.GzipFile(fileobj=raw) if compressed else raw
            yield io.TextIOWrapper(cast(BinaryIO, plain), encoding="utf-8-sig", newline="")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{path.name} is not whole gzip: {error}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path.name} is not UTF-8: {error}") from error
    except OSError as error:
        raise TableError(f"{path.name} cannot be read: {error.strerror or error}") from error
