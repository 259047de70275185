"""A cache of directories that several processes fill without fetching twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def publish_once(cache_dir: Path, key: str, fill: Callable[[Path], None]) -> Path:
    """Return `cache_dir/key`, filled by `fill(directory)` if no process has filled it before.

    One process fills, the others wait for it. The directory gets its name by a rename once it is
    whole and on disk, so a process that is killed leaves only a partial directory, which the next
    one removes. Raises what `fill` raises, and OSError when the cache cannot be written.
    """
    final = cache_dir / key
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{final}.lock"):
        if final.is_dir():
            return final
        partial = final.with_name(final.name + ".partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            fill(partial)
            _sync(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(final)
    return final


def _sync(directory: Path) -> None:
    """Force the files of a directory to disk, so the rename never outlives their content."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
