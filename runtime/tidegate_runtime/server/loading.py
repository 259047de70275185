"""From a configuration to a service that answers. Imports torch, so it is imported late."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import transformers

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.adapters.load import AdapterLoader
from tidegate_runtime.adapters.pool import AdapterPool
from tidegate_runtime.artifact.load import (
    LoadedModel,
    load_generator,
)
from tidegate_runtime.artifact.manifest import artifact_digest, default_kv
from tidegate_runtime.artifact.memory import check_bytes_fit
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.warm import WarmModel
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.chat.renderer import Renderer
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.kv_budget import kv_blocks
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.errors import EngineDead, RequestRefused
from tidegate_runtime.grammar.tables import TokenTables, read_tables
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import kind_on, open_decoder
from tidegate_runtime.parallel.decoder import DividedDecoder
from tidegate_runtime.parallel.orders import Whole
from tidegate_runtime.server.draft import free_bytes
from tidegate_runtime.server.generator import Generator
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.proposers import open_proposer
from tidegate_runtime.server.ranks import Ranks
from tidegate_runtime.server.spill_metrics import SpillMetrics
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.spill.open import SpillPlan, open_spill

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
    warm: WarmModel | None = None,
    renderer: Renderer | None = None,
    ranks: Ranks | None = None,
) -> tuple[Generator, Engine]:
    """A generating service with its engine running; what is `warm` of its model is not read again,
    and its chat templates run in a process that is spawned unless `renderer` knows better.

    With `ranks` the model is divided over them. Raises ModelRefused, ReplicaUnavailable, and
    EngineDead when one of the ranks is gone.
    """
    started = time.perf_counter()
    size = 1 if ranks is None else ranks.size
    kind = kind_on(config.device, size)
    transformers.utils.logging.disable_progress_bar()
    use_threads(config.threads)
    memory = artifact.manifest.memory
    resident = memory.weights
    if config.offload_bytes is not None and kind != "cuda":
        resident = min(resident, config.offload_bytes)
    check_bytes_fit(str(artifact.root), resident + memory.activations)
    tokenizer = None if warm is None else warm.tokenizer
    loaded = load_generator(artifact, context_tokens=config.context_tokens, tokenizer=tokenizer)
    tables = _start_tables(loaded, warm)
    prompts = ChatPrompts(loaded.tokenizer, config.tool_parser, renderer)
    prompts.warm()
    decoder = _open_model(config, artifact, loaded, kind, ranks)
    adapters = open_adapters(config, decoder, metrics)
    # What mapped weights will take as they are touched is not free, though it seems to be; a GPU
    # holds them by now.
    untouched = 0 if kind == "cuda" else resident
    free = max(0, free_bytes(kind, size) - untouched - memory.activations)
    spill = _spill_plan(config, artifact, loaded, metrics)
    if spill is not None and kind != "cuda":
        free = max(0, free - spill.memory_bytes)
    engine = build_engine(
        loaded,
        decoder,
        kv_cache_bytes=config.kv_cache_bytes,
        free_bytes=free,
        max_sequences=config.max_sequences,
        metrics=metrics,
        on_death=on_death,
        open_proposer=lambda blocks: open_proposer(config, loaded, kind, decoder, blocks),
        spill=spill,
    )
    _register_gauges(engine, metrics)
    if ranks is not None:
        ranks.watch(on_death)
    engine.start()
    log.info("loaded the model in %.2f s", time.perf_counter() - started)
    return Generator(loaded, engine, prompts, adapters, tables.result()), engine


def _start_tables(
    loaded: LoadedModel, warm: WarmModel | None
) -> Future[TokenTables | RequestRefused]:
    """What grammars need, read beside the weights: later it would hold up answers."""
    if warm is not None:
        known: Future[TokenTables | RequestRefused] = Future()
        known.set_result(warm.tables)
        return known
    reader = ThreadPoolExecutor(1, thread_name_prefix="vocabulary")
    try:
        return reader.submit(
            read_tables, loaded.tokenizer, loaded.vocabulary_size, loaded.eos_tokens
        )
    finally:
        reader.shutdown(wait=False)


def open_adapters(config: ReplicaConfig, decoder: Decoder, metrics: Metrics) -> AdapterPool:
    """The adapters of a model; the declared ones are checked. Raises ModelRefused,
    ReplicaUnavailable.
    """
    loader = AdapterLoader(decoder, Path(config.cache_dir))
    pool = AdapterPool(config.model_name, loader, config.max_adapters, metrics)
    pool.declare(config.adapters)
    metrics.gauge("tidegate_adapters_loaded", "Adapters in memory.", lambda: pool.loaded)
    return pool


def _open_model(
    config: ReplicaConfig,
    artifact: Artifact,
    loaded: LoadedModel,
    kind: str | None,
    ranks: Ranks | None,
) -> Decoder:
    kv = _kv(config, artifact)
    if ranks is None:
        return open_decoder(
            artifact.root,
            threads=config.threads,
            kv=kv,
            context_tokens=loaded.context_tokens,
            kind=kind,
            offload_bytes=config.offload_bytes,
        )
    cores = config.threads or len(os.sched_getaffinity(0))
    each = max(1, cores // ranks.size)
    whole = Whole(artifact.root, each, kv, loaded.context_tokens, kind)
    return DividedDecoder(ranks.open(whole), ranks, loaded.vocabulary_size)


def build_engine(
    loaded: LoadedModel,
    decoder: Decoder,
    *,
    kv_cache_bytes: int | None,
    free_bytes: int,
    max_sequences: int,
    metrics: Metrics,
    on_death: Callable[[EngineDead], None],
    open_proposer: Callable[[BlockManager], Proposer | None] = lambda _: None,
    spill: SpillPlan | None = None,
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
    blocks = BlockManager(total)
    recalls = None if spill is None else open_spill(spill, decoder, blocks)
    return Engine(
        ModelRunner(decoder),
        Scheduler(blocks, max_sequences=max_sequences, spill=recalls),
        loaded.tokenizer,
        eos_tokens=loaded.eos_tokens,
        observer=metrics,
        on_death=on_death,
        proposer=open_proposer(blocks),
        recalls=recalls,
    )


def _kv(config: ReplicaConfig, artifact: Artifact) -> str:
    """The precision of keys and values."""
    return config.kv or default_kv(artifact.manifest.precision)


def _spill_plan(
    config: ReplicaConfig, artifact: Artifact, loaded: LoadedModel, metrics: Metrics
) -> SpillPlan | None:
    """Where spilled blocks go, if anywhere."""
    asked = config.kv_spill
    if asked is None:
        return None
    return SpillPlan(
        memory_bytes=int(asked.memory or 0),
        disk_bytes=int(asked.disk or 0),
        root=Path(config.cache_dir),
        artifact=artifact_digest(artifact.manifest),
        kv=_kv(config, artifact),
        context_tokens=loaded.context_tokens,
        observer=SpillMetrics(metrics),
    )


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
