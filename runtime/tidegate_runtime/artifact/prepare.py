"""A replica's artifact: found in the cache, or built by a child process first.

Nothing here imports torch, so a replica that finds its artifact verifies it while torch loads; and
a build's memory goes back to the machine with its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tidegate.local.model_files import WHOLE_BYTES, file_fingerprint, model_file_names
from tidegate.protocol.replica import EXIT_REFUSED, ReplicaConfig
from tidegate.spec.source import model_digest
from tidegate_runtime.artifact.open import Artifact, is_artifact
from tidegate_runtime.artifact.store import ArtifactStore, Held, artifact_key, hold
from tidegate_runtime.artifact.warm import Shelf
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

BUILDER = (sys.executable, "-m", "tidegate_runtime.artifact", "build")


def prepare(config: ReplicaConfig, say: Callable[[str], None], shelf: Shelf | None = None) -> Held:
    """The artifact that a configuration asks for, verified and held. `say` is told of a build.

    Raises ModelRefused and ReplicaUnavailable.
    """
    if held := open_built(config, shelf):
        return held
    store = ArtifactStore(Path(config.cache_dir), config.cache_limit_bytes)
    built = Path(_build(config, say)["artifact"])
    held = store.open(built.name)
    if held is None:
        raise ReplicaUnavailable(
            "ArtifactVanished",
            f"the artifact {str(built)!r} was removed as it was built; try again",
        )
    return held


def open_built(config: ReplicaConfig, shelf: Shelf | None = None) -> Held | None:
    """The artifact that a configuration asks for, when it is there already. Raises ModelRefused."""
    if "://" not in config.source and is_artifact(Path(config.source)):
        return _own(config, shelf)
    if config.source_digest is None or config.precision == "auto":
        return None
    store = ArtifactStore(Path(config.cache_dir), config.cache_limit_bytes)
    return store.open(artifact_key(config.source_digest, config.precision), shelf)


def _own(config: ReplicaConfig, shelf: Shelf | None) -> Held:
    """The source is an artifact itself."""
    held = hold(Path(config.source), shelf)
    manifest = held.artifact.manifest
    wanted = config.source_digest
    if wanted not in (None, manifest.source.digest) and wanted != _own_digest(held.artifact):
        raise ModelRefused(
            "SourceChanged",
            f"the artifact {config.source!r} was built from {manifest.source.digest}, and the plan "
            f"was made for {wanted}; deploy it again",
        )
    if config.precision not in ("auto", manifest.precision):
        raise ModelRefused(
            "UnsupportedPrecision",
            f"the artifact {config.source!r} is in {manifest.precision}, and {config.precision} "
            "was asked for; ask for that of the artifact, or build another",
        )
    return held


def _own_digest(artifact: Artifact) -> str:
    """What its control plane calls it: the digest of its files, most of which were just hashed."""

    def files() -> Iterator[tuple[str, int, str]]:
        for name in model_file_names(artifact.root):
            path, entry = artifact.root / name, artifact.manifest.files.get(name)
            if entry is not None and entry.bytes <= WHOLE_BYTES:
                yield name, entry.bytes, entry.sha256
            else:
                yield name, path.stat().st_size, file_fingerprint(path)

    return model_digest(files())


def _build(config: ReplicaConfig, say: Callable[[str], None]) -> dict[str, Any]:
    """Build in a child process that dies with this one; returns what it says of the result."""
    command = [
        *(*BUILDER, config.source, "--json"),
        *("--precision", config.precision, "--cache-dir", config.cache_dir),
        *("--cache-limit-bytes", str(config.cache_limit_bytes)),
        *("--name", config.model_name, "--parent-pid", str(os.getpid())),
    ]
    if config.revision is not None:
        command += ["--revision", config.revision]
    if config.source_digest is not None:
        command += ["--expect-digest", config.source_digest]
    if config.threads is not None:
        command += ["--threads", str(config.threads)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stdout is not None
        last = ""
        for line in child.stderr:
            last = line.rstrip() or last
            say(last)
        said = child.stdout.read()
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        raise ReplicaUnavailable(
            "BuildCrashed",
            f"building {config.source!r} ended with {how}; its last words: {last or 'none'}",
        ) from None
    if error := answer.get("error"):
        kind = ModelRefused if child.returncode == EXIT_REFUSED else ReplicaUnavailable
        raise kind(error["reason"], error["message"])
    return answer
