"""From a configuration to a service that answers. Imports torch, so it is imported late."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.check import ModelFiles
from tidegate_runtime.artifact.load import LoadedModel, load_encoder, load_generator
from tidegate_runtime.artifact.memory import available_bytes
from tidegate_runtime.artifact.resolve import resolve
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.embedder import Embedder, read_pooling
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.kv_budget import kv_blocks
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.errors import EngineDead
from tidegate_runtime.ops import paged_attention, probe
from tidegate_runtime.server.embeddings import Embeddings
from tidegate_runtime.server.generator import Generator
from tidegate_runtime.server.metrics import Metrics

log = logging.getLogger(__name__)


def load_files(config: ReplicaConfig) -> ModelFiles:
    """The model's files on this machine, checked. Raises ModelRefused, ReplicaUnavailable."""
    started = time.perf_counter()
    files = resolve(config.source, config.revision, Path(config.cache_dir))
    log.info("resolved %s in %.2f s", config.source, time.perf_counter() - started)
    return files


def use_threads(threads: int | None) -> None:
    """Give torch this many cores, or all that this process may use."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.set_num_interop_threads(1)


def load_generate(
    config: ReplicaConfig,
    files: ModelFiles,
    metrics: Metrics,
    on_death: Callable[[EngineDead], None],
) -> tuple[Generator, Engine]:
    """A generating service with its engine running. Raises ModelRefused."""
    started = time.perf_counter()
    transformers.utils.logging.disable_progress_bar()
    paged_attention.register()
    probe.register()
    loaded = load_generator(
        files,
        precision=config.precision,
        cache_dir=Path(config.cache_dir),
        context_tokens=config.context_tokens,
        attention=probe.PROBE_NAME,
    )
    log.info("loaded the model in %.2f s", time.perf_counter() - started)
    engine = build_engine(
        loaded,
        kv_cache_bytes=config.kv_cache_bytes,
        max_sequences=config.max_sequences,
        metrics=metrics,
        on_death=on_death,
    )
    _register_gauges(engine, metrics)
    engine.start()
    return Generator(loaded, engine, metrics), engine


def build_engine(
    loaded: LoadedModel,
    *,
    kv_cache_bytes: int | None,
    max_sequences: int,
    metrics: Metrics,
    on_death: Callable[[EngineDead], None],
) -> Engine:
    """An engine over a model loaded with the probing attention. Raises ModelRefused."""
    shape = probe.probe(loaded.model, loaded.context_tokens)
    loaded.model.set_attn_implementation(paged_attention.ATTENTION_NAME)
    total = kv_blocks(
        shape,
        wanted_bytes=kv_cache_bytes,
        free_bytes=available_bytes(),
        max_sequences=max_sequences,
        context_tokens=loaded.context_tokens,
    )
    return Engine(
        ModelRunner(loaded.model, shape, total),
        Scheduler(BlockManager(total), max_sequences=max_sequences),
        loaded.tokenizer,
        eos_tokens=loaded.eos_tokens,
        observer=metrics,
        on_death=on_death,
    )


def load_embed(config: ReplicaConfig, files: ModelFiles, metrics: Metrics) -> Embeddings:
    """An embedding service. Raises ModelRefused."""
    loaded = load_encoder(files, precision=config.precision, context_tokens=config.context_tokens)
    return Embeddings(loaded, Embedder(loaded.model, read_pooling(loaded.root)), metrics)


def _register_gauges(engine: Engine, metrics: Metrics) -> None:
    metrics.gauge(
        "tidegate_kv_blocks_used",
        "Cache blocks held by sequences.",
        lambda: engine.stats().used_blocks,
    )
    metrics.gauge(
        "tidegate_kv_blocks_total", "Cache blocks in all.", lambda: engine.stats().total_blocks
    )
    metrics.gauge(
        "tidegate_sequences_waiting",
        "Sequences that have no place in the batch yet.",
        lambda: engine.stats().waiting,
    )
    metrics.gauge(
        "tidegate_sequences_running", "Sequences in the batch.", lambda: engine.stats().running
    )
