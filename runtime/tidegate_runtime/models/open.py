"""Which decoder runs an artifact, and on which device.

On the processor the compiled one where it can, else the one from transformers; on a GPU always the
one from transformers, over the Triton kernels.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.native import NativeDecoder, why_not_native
from tidegate_runtime.models.operators import NativeOperators, Operators, TorchOperators
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.weights import Weights, read_weights
from tidegate_runtime.ops.compiler import CompilerMissing
from tidegate_runtime.ops.native import Threads, kernels

log = logging.getLogger(__name__)

KINDS = ("native", "transformers", "torch")
"""Those of the processor; "cuda" is the kind of a GPU."""
_FP8_CAPABILITY = (8, 9)


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
    context. `kind` asks for one of `KINDS`, compiled as a whole, transformers over compiled
    operators, or transformers on torch alone, or for "cuda"; None takes the fastest that this
    model and the processor allow. Raises ModelRefused for a model that cannot be served, and
    CompilerMissing when a kind is asked for that needs kernels.
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
    operators: Operators
    if chosen == "cuda":
        operators = _on_gpu(config, weights, kv)
    elif chosen == "transformers":
        operators = NativeOperators(Threads(count))
    else:
        operators = TorchOperators()
    return TransformersDecoder(config, weights, operators=operators, kv=kv, context_tokens=context)


def kind_on(device: str) -> str | None:
    """What to ask of `open_decoder` for a device: "cpu", "cuda", or "auto" for a GPU if there is
    one. Raises ModelRefused (DeviceMissing).
    """
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise ModelRefused(
            "DeviceMissing",
            f"device 'cuda' was asked for and torch {torch.__version__} sees no GPU here; see that "
            "nvidia-smi lists one and that torch was installed for CUDA, or set device to 'cpu'",
        )
    return "cuda" if seen and device != "cpu" else None


def check_capability(kv: str, capability: tuple[int, int]) -> None:
    """Refuse keys and values that a GPU of this compute capability cannot convert.

    Raises ModelRefused (UnsupportedKv).
    """
    if kv == "fp8" and capability < _FP8_CAPABILITY:
        raise ModelRefused(
            "UnsupportedKv",
            f"kv 'fp8' needs a GPU of compute capability 8.9 and this one has "
            f"{capability[0]}.{capability[1]}; set kv to 'int8' or 'bf16'",
        )


def _on_gpu(config: Any, weights: Weights, kv: str) -> Operators:
    """Raises ModelRefused where the GPU or its compiler falls short."""
    try:
        from tidegate_runtime.models.triton import TritonOperators
    except ModuleNotFoundError as error:
        raise ModelRefused(
            "TritonMissing",
            f"device 'cuda' needs the package {error.name!r}; pip install 'tidegate[gpu]', or set "
            "device to 'cpu'",
        ) from error
    check_capability(kv, torch.cuda.get_device_capability())
    heads = int(config.get_text_config().num_attention_heads)
    # Without packed linears the artifact was built to keep float32.
    dtype = torch.bfloat16 if weights.linears else torch.float32
    return TritonOperators(torch.device("cuda"), dtype, heads)


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
