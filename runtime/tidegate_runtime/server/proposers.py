"""What guesses the next tokens of a replica's model."""

from __future__ import annotations

from pathlib import Path

from tidegate.protocol.replica import ReplicaConfig
from tidegate.spec import SpeculationSpec
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.server.draft import open_draft
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.ngram import NgramProposer
from tidegate_runtime.speculation.open import open_self_speculation
from tidegate_runtime.speculation.source import fetch_heads


def open_proposer(
    config: ReplicaConfig,
    loaded: LoadedModel,
    kind: str | None,
    target: Decoder,
    blocks: BlockManager,
) -> Proposer | None:
    """What guesses next tokens of `target` with its pool `blocks`, if anything.

    Raises ModelRefused for a draft model or heads that do not fit the model, and what opening them
    raises.
    """
    asked = config.speculation
    if asked is None:
        return None
    if asked.method == "ngram":
        return NgramProposer(asked.max_tokens)
    if asked.method == "draft":
        return open_draft(config, loaded, kind)
    asked = _with_heads_here(config, asked)
    return open_self_speculation(asked, target, blocks, max_sequences=config.max_sequences)


def _with_heads_here(config: ReplicaConfig, asked: SpeculationSpec) -> SpeculationSpec:
    """The same, with its heads in a directory of this machine."""
    if asked.heads is None:
        return asked
    planned = config.heads
    root = fetch_heads(
        asked.heads,
        Path(config.cache_dir),
        revision=planned.revision if planned else None,
        digest=planned.source_digest if planned else None,
    )
    return asked.model_copy(update={"heads": str(root)})
