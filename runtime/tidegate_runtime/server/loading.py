"""From a configuration to a service that answers. Imports torch, so it is imported late."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.check import ModelFiles
from tidegate_runtime.artifact.load import LoadedModel, load_encoder, load_generator
from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.artifact.memory import available_bytes, check_bytes_fit
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.embedder import Embedder, read_pooling
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.kv_budget import kv_blocks
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.errors import EngineDead, ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import kind_on, open_decoder
from tidegate_runtime.server.embeddings import Embeddings
from tidegate_runtime.server.generator import Generator
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.draft_model import DraftModelProposer
from tidegate_runtime.speculation.ngram import NgramProposer

log = logging.getLogger(__name__)


def use_threads(threads: int | None) -> None:
    """Give torch this many cores, or all that this process may use."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.set_num_interop_threads(1)


def load_generate(
    config: ReplicaConfig,
    artifact: Artifact,
    metrics: Metrics,
    on_death: Callable[[EngineDead], None],
    tokenizer: Any = None,
) -> tuple[Generator, Engine]:
    """A generating service with its engine running; its tokenizer is read unless it is given.

    Raises ModelRefused, ReplicaUnavailable.
    """
    started = time.perf_counter()
    kind = kind_on(config.device)
    transformers.utils.logging.disable_progress_bar()
    use_threads(config.threads)
    memory = artifact.manifest.memory
    check_bytes_fit(str(artifact.root), memory.weights + memory.activations)
    loaded = load_generator(artifact, context_tokens=config.context_tokens, tokenizer=tokenizer)
    decoder = open_decoder(
        artifact.root,
        threads=config.threads,
        kv=config.kv or default_kv(artifact.manifest.precision),
        context_tokens=loaded.context_tokens,
        kind=kind,
    )
    # What mapped weights will take as they are touched is not free, though it seems to be; a GPU
    # holds them by now.
    untouched = 0 if kind == "cuda" else memory.weights
    free = max(0, free_bytes(kind) - untouched - memory.activations)
    engine = build_engine(
        loaded,
        decoder,
        kv_cache_bytes=config.kv_cache_bytes,
        free_bytes=free,
        max_sequences=config.max_sequences,
        metrics=metrics,
        on_death=on_death,
        proposer=open_proposer(config, loaded, kind),
    )
    _register_gauges(engine, metrics)
    engine.start()
    log.info("loaded the model in %.2f s", time.perf_counter() - started)
    return Generator(loaded, engine), engine


def free_bytes(kind: str | None) -> int:
    """The memory left for a pool, where a decoder of this kind has its own."""
    return torch.cuda.mem_get_info()[0] if kind == "cuda" else available_bytes()


def open_proposer(config: ReplicaConfig, loaded: LoadedModel, kind: str | None) -> Proposer | None:
    """What guesses next tokens, if anything. Raises ModelRefused for a draft model that does not
    fit the model, and what opening it raises.
    """
    asked = config.speculation
    if asked is None:
        return None
    if asked.method == "ngram":
        return NgramProposer(asked.max_tokens)
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


def build_engine(
    loaded: LoadedModel,
    decoder: Decoder,
    *,
    kv_cache_bytes: int | None,
    free_bytes: int,
    max_sequences: int,
    metrics: Metrics,
    on_death: Callable[[EngineDead], None],
    proposer: Proposer | None = None,
) -> Engine:
    """An engine over a decoder, which gets its pool. Raises ModelRefused, ReplicaUnavailable."""
    total = kv_blocks(
        decoder.kv,
        wanted_bytes=kv_cache_bytes,
        free_bytes=free_bytes,
        max_sequences=max_sequences,
        context_tokens=loaded.context_tokens,
    )
    decoder.allocate(total)
    return Engine(
        ModelRunner(decoder),
        Scheduler(BlockManager(total), max_sequences=max_sequences),
        loaded.tokenizer,
        eos_tokens=loaded.eos_tokens,
        observer=metrics,
        on_death=on_death,
        proposer=proposer,
    )


def load_embed(config: ReplicaConfig, files: ModelFiles, metrics: Metrics) -> Embeddings:
    """An embedding service, dense. Raises ModelRefused."""
    if config.device == "cuda":
        raise ModelRefused(
            "UnsupportedDevice",
            "device 'cuda' is not supported for task 'embed'; set device to 'cpu'",
        )
    use_threads(config.threads)
    precision = "bf16" if config.precision == "auto" else config.precision
    loaded = load_encoder(files, precision=precision, context_tokens=config.context_tokens)
    return Embeddings(loaded, Embedder(loaded.model, read_pooling(loaded.root)), metrics)


def _register_gauges(engine: Engine, metrics: Metrics) -> None:
    blocks = engine.stats().total_blocks
    for name, description, read in (
        (
            "vllm:num_requests_running",
            "Sequences in the batch.",
            lambda: engine.stats().running,
        ),
        (
            "vllm:num_requests_waiting",
            "Sequences that have no place in the batch yet.",
            lambda: engine.stats().waiting,
        ),
        (
            "vllm:kv_cache_usage_perc",
            "The share of the cache that sequences hold; 1 is all of it.",
            lambda: engine.stats().used_blocks / blocks,
        ),
        (
            "tidegate_kv_cache_tokens",
            "Tokens that the cache holds in all.",
            lambda: engine.cache_tokens,
        ),
    ):
        metrics.gauge(name, description, read)
