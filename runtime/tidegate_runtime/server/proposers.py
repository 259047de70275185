"""What guesses the next tokens of a replica's model."""

from __future__ import annotations

import logging

import torch

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.artifact.memory import available_bytes
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.kv_budget import kv_blocks
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.draft_model import DraftModelProposer
from tidegate_runtime.speculation.ngram import NgramProposer
from tidegate_runtime.speculation.open import open_self_speculation

log = logging.getLogger(__name__)


def free_bytes(kind: str | None, ranks: int = 1) -> int:
    """The memory left for a pool, where a decoder of this kind has its own, over all ranks."""
    return torch.cuda.mem_get_info()[0] * ranks if kind == "cuda" else available_bytes()


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
    if asked.method != "draft":
        return open_self_speculation(asked, target, blocks, max_sequences=config.max_sequences)
    assert asked.draft_model is not None  # the declaration has checked it
    own = {"source": asked.draft_model, "source_digest": None, "revision": None}
    held = prepare(config.model_copy(update={**own, "precision": "auto"}), log.info)
    artifact = held.artifact
    decoder = open_decoder(
        artifact.root,
        threads=config.threads,
        kv=default_kv(artifact.manifest.precision),
        context_tokens=loaded.context_tokens,
        kind=kind,
    )
    if decoder.vocabulary_size != loaded.vocabulary_size:
        raise ModelRefused(
            "WrongDraftModel",
            f"the draft model {asked.draft_model!r} has {decoder.vocabulary_size} tokens and the "
            f"model has {loaded.vocabulary_size}; use one of the same family",
        )
    total = kv_blocks(
        decoder.kv,
        wanted_bytes=None,
        free_bytes=free_bytes(kind) // 2,
        max_sequences=config.max_sequences,
        context_tokens=loaded.context_tokens,
    )
    decoder.allocate(total)
    return DraftModelProposer(decoder, BlockManager(total), asked.max_tokens)
