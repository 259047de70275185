"""Objects on their way, as files: what reads or writes a table wants to seek in one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_NAME_CHARS = 100


class Spool:
    """A directory for files that nobody misses when the process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def clear(self) -> None:
        """For the start of a process: remove what a former one left."""
        shutil.rmtree(self._path, ignore_errors=True)

    @contextmanager
    def place(self, key: str) -> Iterator[Path]:
        """Where a file named like the object can be written; it is gone afterwards."""
        self._path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._path) as directory:
            yield Path(directory) / key.rsplit("/", 1)[-1][-MAX_NAME_CHARS:]
