"""A model that is asked without a server."""

from __future__ import annotations

import logging
import time

from pydantic import BaseModel

from tidegate.protocol.openai import ChatCompletionRequest, EmbeddingRequest, ModelRequest
from tidegate.protocol.rank import RerankRequest, ScoreRequest
from tidegate.protocol.replica import Priority, ReplicaConfig
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.errors import EngineDead
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.process import load_encoder
from tidegate_runtime.server.ranks import Ranks
from tidegate_runtime.server.replica import Replica
from tidegate_runtime.server.status import StatusFile

log = logging.getLogger(__name__)


def load_model(config: ReplicaConfig, ranks: Ranks | None) -> Replica:
    """The model with its engine running, divided over `ranks` if there are any.

    Raises ModelRefused, ReplicaUnavailable, EngineDead.
    """
    lifecycle = Lifecycle(StatusFile(None, config.replica_id), 0)
    replica = Replica(config, lifecycle, Metrics(config.model_name))
    if config.task != "generate":
        load_encoder(replica)
        return replica
    held = prepare(config, log.info)
    from tidegate_runtime.server import loading

    replica.generate, _ = loading.load_generate(
        config, held.artifact, replica.metrics, _tell, ranks=ranks
    )
    return replica


async def ask(model: Replica, request: ModelRequest) -> BaseModel:
    """The whole answer. Raises RequestRefused, GenerationFailed."""
    caller = Caller(time.monotonic(), priority=Priority.BATCH)
    if isinstance(request, EmbeddingRequest):
        return await model.embedder(request.model).embed(request, caller)
    if isinstance(request, RerankRequest):
        return await model.ranker(request.model).rerank(request, caller)
    if isinstance(request, ScoreRequest):
        return await model.ranker(request.model).score(request, caller)
    service = model.generator(request.model)
    if isinstance(request, ChatCompletionRequest):
        return await service.chat(request, caller)
    return await service.complete(request, caller)


def _tell(error: EngineDead) -> None:
    """Every line in flight raises it too, which ends the job."""
    log.error("%s", error.message)
