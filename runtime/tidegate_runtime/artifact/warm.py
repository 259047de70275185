"""What is known of models before a replica starts: files that were verified, tokenizers that are
read, and what grammars need of them.

A zygote fills a shelf and its replicas inherit it. A file is known by its inode, size and times, as
git's index knows one: the kernel sets the time of change at every write, and no program sets it
back.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate_runtime.artifact.manifest import MANIFEST
from tidegate_runtime.artifact.open import Artifact

if TYPE_CHECKING:
    from tidegate_runtime.errors import RequestRefused
    from tidegate_runtime.grammar.tables import TokenTables

Fingerprint = tuple[tuple[str, int, int, int, int], ...]
"""Of each file: name, inode, size in bytes, time written and time changed in nanoseconds."""


@dataclass(frozen=True)
class WarmModel:
    """A verified artifact and what was read of it, as long as its files stay what they were."""

    artifact: Artifact
    tokenizer: Any
    tables: TokenTables | RequestRefused
    fingerprint: Fingerprint
    manifest_sha256: str
    memory_bytes: int
    """What keeping it takes."""


class Shelf:
    """Warm models by directory, within a bound of memory; the one unused for longest goes first."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._models: OrderedDict[Path, WarmModel] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    def find(self, root: Path) -> WarmModel | None:
        """The model in a directory; None when it is not warm, or its files were touched since."""
        model = self._models.get(root)
        if model is None:
            return None
        try:
            same = (fingerprint(root), manifest_sha256(root)) == (
                model.fingerprint,
                model.manifest_sha256,
            )
        except OSError:
            same = False
        if not same:
            del self._models[root]
            return None
        self._models.move_to_end(root)
        return model

    def model(self, artifact: Artifact) -> WarmModel | None:
        """What is known of an artifact that was found here; None for any other."""
        model = self._models.get(artifact.root)
        return model if model and model.artifact is artifact else None

    def put(self, model: WarmModel) -> None:
        """Keep a model, unless it alone is over the bound; others make room."""
        root = model.artifact.root
        self._models.pop(root, None)
        if model.memory_bytes > self._limit_bytes:
            return
        self._models[root] = model
        while sum(kept.memory_bytes for kept in self._models.values()) > self._limit_bytes:
            self._models.popitem(last=False)


def fingerprint(root: Path) -> Fingerprint:
    """Of every file but the manifest, whose time says when the artifact was last used."""
    found = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name != MANIFEST:
                state = entry.stat(follow_symlinks=False)
                times = (state.st_mtime_ns, state.st_ctime_ns)
                found.append((entry.name, state.st_ino, state.st_size, *times))
    return tuple(sorted(found))


def manifest_sha256(root: Path) -> str:
    """The digest of the manifest."""
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()
