"""From the source of heads to their two files on this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tidegate.local.heads_files import MANIFEST, WEIGHTS, heads_digest
from tidegate_runtime.artifact.some_files import Wanted, fetch_some
from tidegate_runtime.errors import ModelRefused


def fetch_heads(
    source: str, cache_dir: Path, *, revision: str | None = None, digest: str | None = None
) -> Path:
    """The directory with the files of heads: its own, or one in the cache.

    `digest` is that of the plan. Raises ModelRefused: SourceNotFound, SourceForbidden, DamagedHeads
    without both files, SourceChanged with another digest; and ReplicaUnavailable.
    """
    root = fetch_some(source, revision, cache_dir, Wanted("heads", "tidegate distill", _names))
    found = heads_digest((root / MANIFEST).read_bytes())
    if digest not in (None, found):
        raise ModelRefused(
            "SourceChanged",
            f"the heads {source!r} have the digest {found}, and the plan was made for {digest}; "
            "their files have changed since: deploy it again",
        )
    return root


def _names(source: str, names: Iterable[str]) -> list[str]:
    there = set(names)
    for name in (MANIFEST, WEIGHTS):
        if name not in there:
            raise ModelRefused(
                "DamagedHeads",
                f"heads {source!r}: there is no {name}; give what tidegate distill wrote",
            )
    return [MANIFEST, WEIGHTS]
