"""From an adapter's source to its two files on this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tidegate.spec import SourceKind, parse_source
from tidegate.spec.source import PICKLED_SUFFIXES
from tidegate_runtime.errors import ModelRefused

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def fetch_adapter(source: str, cache_dir: Path) -> Path:
    """The directory with the files of an adapter: its own, or one in the cache.

    Raises ModelRefused when it can never be served, and ReplicaUnavailable when its source cannot
    be reached now.
    """
    try:
        parsed = parse_source(source)
    except ValueError as error:
        raise ModelRefused("SourceNotFound", str(error)) from error
    if parsed.kind is SourceKind.S3:
        from tidegate_runtime.artifact.s3 import fetch_files

        return fetch_files(parsed.location, cache_dir, check_names)
    if parsed.kind is SourceKind.HUB:
        from tidegate_runtime.artifact.hub import fetch_hub_files

        return fetch_hub_files(parsed.location, cache_dir, check_names)
    path = Path(parsed.location)
    if not path.is_dir():
        raise ModelRefused(
            "SourceNotFound",
            f"adapter {source!r} is no directory on this machine; give one that PEFT saved, or "
            "s3://bucket/prefix or hf://org/name",
        )
    check_names(source, (item.name for item in path.iterdir()))
    return path


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
