"""From a source to some of its files on this machine: an adapter's, or those of heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tidegate.spec import SourceKind, parse_source
from tidegate_runtime.errors import ModelRefused


@dataclass(frozen=True)
class Wanted:
    """Which files, and what they are together."""

    kind: str
    """A word for what they are: it is part of messages and of names in the cache."""
    writer: str
    """Who saves them."""
    choose: Callable[[str, Iterable[str]], list[str]]
    """Of a source and the names of its files, those that are wanted. Raises ModelRefused."""


def fetch_some(source: str, revision: str | None, cache_dir: Path, wanted: Wanted) -> Path:
    """The directory that holds them: the source itself, or one in the cache.

    `revision` is a hub's commit, None for the newest. Raises what `choose` raises, ModelRefused
    (SourceNotFound, SourceForbidden), and ReplicaUnavailable when the source cannot be reached now.
    """
    try:
        parsed = parse_source(source, revision)
    except ValueError as error:
        raise ModelRefused("SourceNotFound", str(error)) from error
    if parsed.kind is SourceKind.S3:
        from tidegate_runtime.artifact.s3 import fetch_files

        return fetch_files(parsed.location, cache_dir, wanted.choose)
    if parsed.kind is SourceKind.HUB:
        from tidegate_runtime.artifact.hub import fetch_hub_files

        return fetch_hub_files(parsed.location, revision, cache_dir, wanted.kind, wanted.choose)
    path = Path(parsed.location)
    if not path.is_dir():
        raise ModelRefused(
            "SourceNotFound",
            f"{wanted.kind} {source!r}: there is no such directory on this machine; give one that "
            f"{wanted.writer} saved, or s3://bucket/prefix or hf://org/name",
        )
    wanted.choose(source, (item.name for item in path.iterdir()))
    return path
