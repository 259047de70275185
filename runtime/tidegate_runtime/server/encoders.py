"""From a configuration to the services of an encoder. Imports torch, so it is imported late."""

from __future__ import annotations

from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.check import ModelFiles
from tidegate_runtime.artifact.load import load_cross_encoder, load_encoder
from tidegate_runtime.engine.embedder import CrossEncoder, Embedder, choose_pooling
from tidegate_runtime.engine.encoder_queue import EncoderQueue
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.server.embeddings import Embeddings
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.rank import CrossScorer, LikenessScorer, Ranking


def load_encode(
    config: ReplicaConfig, files: ModelFiles, metrics: Metrics
) -> tuple[Embeddings | None, Ranking]:
    """The services of an encoder, dense: embeddings unless it is a cross-encoder, and ranks.

    Raises ModelRefused.
    """
    if config.device == "cuda":
        raise ModelRefused(
            "UnsupportedDevice",
            f"device 'cuda' is not supported for task {config.task!r}; set device to 'cpu'",
        )
    if config.adapters:
        raise ModelRefused(
            "UnsupportedAdapter",
            f"adapters {sorted(config.adapters)} are not supported for task {config.task!r}; "
            "remove them",
        )
    precision = "bf16" if config.precision == "auto" else config.precision
    load = load_cross_encoder if config.task == "rerank" else load_encoder
    loaded = load(files, precision=precision, context_tokens=config.context_tokens)
    if config.task == "rerank":
        queue = EncoderQueue(CrossEncoder(loaded.model))
        return None, Ranking(loaded, queue, CrossScorer(loaded, queue), metrics)
    pooling = choose_pooling(loaded.root, config.pooling)
    queue = EncoderQueue(Embedder(loaded.model, pooling))
    ranking = Ranking(loaded, queue, LikenessScorer(loaded, queue), metrics)
    return Embeddings(loaded, queue, metrics), ranking
