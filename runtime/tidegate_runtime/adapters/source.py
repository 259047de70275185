"""From an adapter's source to its two files on this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tidegate.spec.source import PICKLED_SUFFIXES
from tidegate_runtime.artifact.some_files import Wanted, fetch_some
from tidegate_runtime.errors import ModelRefused

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def fetch_adapter(source: str, cache_dir: Path) -> Path:
    """The directory with the files of an adapter: its own, or one in the cache.

    Raises ModelRefused when it can never be served, and ReplicaUnavailable when its source cannot
    be reached now.
    """
    return fetch_some(source, None, cache_dir, Wanted("adapter", "PEFT", check_names))


def check_names(source: str, names: Iterable[str]) -> list[str]:
    """The names of the files that are wanted of those that are there. Raises ModelRefused."""
    there = set(names)
    if CONFIG not in there:
        raise ModelRefused(
            "NotAnAdapter",
            f"adapter {source!r} has no {CONFIG}; give the directory that PEFT's save_pretrained "
            "wrote",
        )
    if WEIGHTS not in there:
        pickled = sorted(n for n in there if PurePosixPath(n).suffix in PICKLED_SUFFIXES)
        raise ModelRefused(
            "PickledWeights" if pickled else "NotAnAdapter",
            f"adapter {source!r} has no {WEIGHTS}"
            + (f" but {pickled[0]}, a pickle, which can run any code" if pickled else "")
            + "; save it with PEFT's save_pretrained(..., safe_serialization=True)",
        )
    return [CONFIG, WEIGHTS]
