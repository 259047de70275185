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
        if not final.is_dir():
            publish(final, fill)
    return final


def publish(final: Path, fill: Callable[[Path], None]) -> None:
    """Make the directory `final` with `fill(directory)`: it is there whole and on disk, or not.

    Raises what `fill` raises, and OSError when it cannot be written or `final` is there already.
    """
    partial = final.with_name(final.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        fill(partial)
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        partial.rename(final)
        _sync(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    """Force a file or directory to disk, so the rename never outlives its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
