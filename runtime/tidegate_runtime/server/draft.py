"""The draft model of a replica: pinned by its plan, or taken as it is when the replica is alone."""

from __future__ import annotations

import logging
from typing import Any

import torch

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.checkpoint import load_tokenizer
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.artifact.memory import available_bytes, check_bytes_fit
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.kv_budget import kv_blocks
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.speculation.draft_model import DraftModelProposer

log = logging.getLogger(__name__)


def free_bytes(kind: str | None, ranks: int = 1) -> int:
    """The memory left for a pool, where a decoder of this kind has its own, over all ranks."""
    return torch.cuda.mem_get_info()[0] * ranks if kind == "cuda" else available_bytes()


def open_draft(config: ReplicaConfig, loaded: LoadedModel, kind: str | None) -> DraftModelProposer:
    """The draft model that a configuration names, with a pool of its own.

    Raises ModelRefused (WrongDraftModel) when its tokens are not those of the model, and what
    making and opening an artifact raises.
    """
    artifact = prepare(_as_source(config), log.info).artifact
    if config.draft is None:
        _check_tokens(config, artifact, loaded.tokenizer)
    memory = artifact.manifest.memory
    check_bytes_fit(str(artifact.root), memory.weights + memory.activations)
    context = min(loaded.context_tokens, artifact.manifest.context_tokens)
    decoder = open_decoder(
        artifact.root,
        threads=config.threads,
        kv=default_kv(artifact.manifest.precision),
        context_tokens=context,
        kind=kind,
    )
    free, planned = free_bytes(kind), config.draft
    total = kv_blocks(
        decoder.kv,
        wanted_bytes=None if planned is None else planned.kv_cache_bytes,
        free_bytes=free // 2 if planned is None else free,
        max_sequences=config.max_sequences,
        context_tokens=context,
    )
    decoder.allocate(total)
    assert config.speculation is not None
    return DraftModelProposer(
        decoder,
        BlockManager(total),
        config.speculation.max_tokens,
        context_tokens=context,
        vocabulary_size=loaded.vocabulary_size,
    )


def _as_source(config: ReplicaConfig) -> ReplicaConfig:
    """The configuration of a replica whose model is the draft model."""
    assert config.speculation is not None
    own: dict[str, Any] = {"source_digest": None, "revision": None, "precision": "auto"}
    if config.draft is not None:
        own = config.draft.model_dump(exclude={"kv_cache_bytes"})
    return config.model_copy(update={"source": config.speculation.draft_model, **own})


def _check_tokens(config: ReplicaConfig, artifact: Artifact, tokenizer: Any) -> None:
    """A plan has compared them already."""
    if load_tokenizer(artifact.root).get_vocab() != tokenizer.get_vocab():
        source = config.speculation and config.speculation.draft_model
        raise ModelRefused(
            "WrongDraftModel",
            f"the draft model {source!r} has other tokens than the model, so no guess of it would "
            "mean anything; use a smaller model of the same family",
        )
