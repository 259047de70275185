"""Put on the shelf what replicas of a configuration will read first."""

from __future__ import annotations

import logging
from pathlib import Path

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.load import load_generator
from tidegate_runtime.artifact.memory import resident_bytes
from tidegate_runtime.artifact.prepare import open_built
from tidegate_runtime.artifact.warm import Shelf, WarmModel, fingerprint, manifest_sha256
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.grammar.tables import read_tables

log = logging.getLogger(__name__)


def warm(shelf: Shelf, config_path: Path) -> None:
    """Verify the artifact, read its tokenizer and what grammars need of it, unless it is warm, or
    not built yet.

    What cannot be read is left to the replica, which says why.
    """
    try:
        config = ReplicaConfig.model_validate_json(config_path.read_bytes())
        if config.task == "generate":
            _warm(shelf, config)
    except (OSError, ValueError, ModelRefused, ReplicaUnavailable) as error:
        log.warning("not warmed: %s", error)


def _warm(shelf: Shelf, config: ReplicaConfig) -> None:
    before = resident_bytes()
    held = open_built(config, shelf)
    if held is None:
        return
    try:
        root = held.artifact.root
        if shelf.model(held.artifact) is not None:
            return
        # Taken before the tokenizer is read: what is written meanwhile makes it stale.
        seen = fingerprint(root), manifest_sha256(root)
        loaded = load_generator(held.artifact, context_tokens=None)
        tables = read_tables(loaded.tokenizer, loaded.vocabulary_size, loaded.eos_tokens)
        kept_bytes = max(_file_bytes(root), resident_bytes() - before)
        shelf.put(WarmModel(held.artifact, loaded.tokenizer, tables, *seen, kept_bytes))
        log.info("%s is warm (%d MB)", root.name, kept_bytes // 1_000_000)
    finally:
        held.close()


def _file_bytes(root: Path) -> int:
    """Of a tokenizer's files: it takes at least as much, also where it finds memory to reuse."""
    return sum(path.stat().st_size for path in root.glob("token*"))
