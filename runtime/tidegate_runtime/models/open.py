"""Which decoder runs an artifact: the compiled one where it can, else the one from transformers."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.native import NativeDecoder, why_not_native
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.weights import Weights, read_weights
from tidegate_runtime.ops.compiler import CompilerMissing
from tidegate_runtime.ops.native import Threads, kernels

log = logging.getLogger(__name__)

KINDS = ("native", "transformers", "torch")


def open_decoder(
    artifact_dir: Path,
    *,
    threads: int | None,
    kv: str = "bf16",
    context_tokens: int | None = None,
    kind: str | None = None,
) -> Decoder:
    """The decoder of an artifact whose files were checked before; see `models.base`.

    `threads` None takes every core this process may use, `context_tokens` None the artifact's own
    context. `kind` asks for one of `KINDS`: compiled
    as a whole, transformers over compiled operators, or transformers on torch alone; None takes
    the fastest that this model and machine allow. Raises ModelRefused for a model that cannot be
    served, and CompilerMissing when a kind is asked for that needs kernels.
    """
    manifest = json.loads((artifact_dir / "manifest.json").read_bytes())
    config = transformers.AutoConfig.from_pretrained(artifact_dir, trust_remote_code=False)
    weights = read_weights(artifact_dir / "weights.safetensors", manifest)
    context = context_tokens or int(manifest["context_tokens"])
    count = threads or len(os.sched_getaffinity(0))
    chosen = kind or _fastest(config, weights)
    if chosen == "native":
        return NativeDecoder(config, weights, threads=count, kv=kv, context_tokens=context)
    torch.set_num_threads(count)
    team = Threads(count) if chosen == "transformers" else None
    return TransformersDecoder(config, weights, threads=team, kv=kv, context_tokens=context)


def _fastest(config: Any, weights: Weights) -> str:
    try:
        kernels()
    except CompilerMissing as error:
        log.warning("running on torch alone, which is slow: %s", error)
        return "torch"
    why = why_not_native(config) if weights.linears else "its weights are not packed"
    if why is not None:
        log.info("running layer by layer: %s", why)
        return "transformers"
    return "native"
