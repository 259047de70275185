"""Which decoder runs an artifact, and on which device.

On the processor the compiled one where it can, else the one from transformers; on a GPU always the
one from transformers, over the Triton kernels.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate_runtime.artifact.manifest import WEIGHTS
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.family import why_not_native
from tidegate_runtime.models.native import NativeDecoder
from tidegate_runtime.models.operators import NativeOperators, Operators, TorchOperators
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.weights import Weights, read_weights
from tidegate_runtime.offload.open import Offload, offload_of
from tidegate_runtime.ops.abi import kernels
from tidegate_runtime.ops.compiler import CompilerMissing
from tidegate_runtime.ops.native import Threads
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.parallel.division import divide
from tidegate_runtime.parallel.group import Group
from tidegate_runtime.parallel.part import PartDecoder

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
    group: Group | None = None,
    offload_bytes: int | None = None,
) -> Decoder:
    """The decoder of an artifact whose files were checked before; see `models.base`.

    `threads` None takes every core this process may use, `context_tokens` None the artifact's own
    context. `kind` asks for one of `KINDS`, compiled as a whole, transformers over compiled
    operators, or transformers on torch alone, or for "cuda"; None takes the fastest that this
    model and the processor allow. With a `group` it is this rank's part of the model, which is
    never compiled as a whole. Of weights that take more than `offload_bytes`, some layers are
    brought anew at each step, which is not compiled as a whole either; a divided model has none.
    Raises ModelRefused for a model that cannot be served, and CompilerMissing when a kind is asked
    for that needs kernels.
    """
    manifest = json.loads((artifact_dir / "manifest.json").read_bytes())
    config = transformers.AutoConfig.from_pretrained(artifact_dir, trust_remote_code=False)
    file = artifact_dir / WEIGHTS
    weights = read_weights(file, manifest)
    context = context_tokens or int(manifest["context_tokens"])
    count = threads or len(os.sched_getaffinity(0))
    offload = None if offload_bytes is None else offload_of(weights, offload_bytes)
    chosen = kind or _fastest(config, weights, in_parts=_in_parts(group, offload))
    if chosen == "native":
        return NativeDecoder(config, weights, threads=count, kv=kv, context_tokens=context)
    torch.set_num_threads(count)
    build = functools.partial(TransformersDecoder, kv=kv, context_tokens=context)
    operators = functools.partial(_operators, chosen, kv=kv, threads=count)
    if group is not None:
        part = divide(config, weights, group.rank, group.size)
        on_rank = operators(part.config, part.weights, device=device_of(chosen, group.rank))
        return PartDecoder(part, group, operators=on_rank, kv=kv, context_tokens=context)
    device = device_of(chosen)
    if offload is None:
        return build(config, weights, operators=operators(config, weights, device=device))
    adapt = _streaming(offload, chosen, file)
    streaming = operators(config, weights, device=device, hosted=offload.linears)
    return build(config, weights, operators=streaming, adapt=adapt)


def _in_parts(group: Group | None, offload: Offload | None) -> str | None:
    """Why a model cannot run as a whole, in words."""
    if group is not None:
        return "its layers are divided"
    return None if offload is None else "its layers are streamed"


def device_of(kind: str | None, rank: int = 0) -> torch.device:
    """Where a decoder of this kind computes: each rank on a GPU of its own."""
    return torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")


def kind_on(device: str, ranks: int = 1) -> str | None:
    """What to ask of `open_decoder` for a device: "cpu", "cuda", or "auto" for a GPU if there is
    one; each of `ranks` wants its own. Raises ModelRefused (DeviceMissing).
    """
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise ModelRefused(
            "DeviceMissing",
            f"device 'cuda' was asked for and torch {torch.__version__} sees no GPU here; see that "
            "nvidia-smi lists one and that torch was installed for CUDA, or set device to 'cpu'",
        )
    if not seen or device == "cpu":
        return None
    if ranks > torch.cuda.device_count():
        raise ModelRefused(
            "DeviceMissing",
            f"tensor_parallel {ranks} needs as many GPUs and {torch.cuda.device_count()} are seen "
            "here; lower it, or start the replica where there are more",
        )
    return "cuda"


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


def _streaming(offload: Offload, kind: str, file: Path) -> Callable[[Any], None]:
    """What makes a model bring its layers. Raises ModelRefused."""
    if kind == "cuda":
        return functools.partial(offload.from_host, device_of(kind))
    if kind == "transformers":
        return functools.partial(offload.from_file, file)
    raise ModelRefused(
        "CannotOffload",
        "offload_bytes: without compiled kernels all weights are unpacked in memory; install a "
        "C++ compiler, or leave offload out",
    )


def _operators(
    kind: str,
    config: Any,
    weights: Weights,
    *,
    kv: str,
    threads: int,
    device: torch.device,
    hosted: frozenset[PackedLinear] = frozenset(),
) -> Operators:
    if kind == "cuda":
        return _on_gpu(config, weights, kv, device, hosted)
    return NativeOperators(Threads(threads)) if kind == "transformers" else TorchOperators()


def _on_gpu(
    config: Any,
    weights: Weights,
    kv: str,
    device: torch.device,
    hosted: frozenset[PackedLinear],
) -> Operators:
    """Raises ModelRefused where the GPU or its compiler falls short."""
    try:
        from tidegate_runtime.models.triton import TritonOperators
    except ModuleNotFoundError as error:
        raise ModelRefused(
            "TritonMissing",
            f"device 'cuda' needs the package {error.name!r}; pip install 'tidegate[gpu]', or set "
            "device to 'cpu'",
        ) from error
    check_capability(kv, torch.cuda.get_device_capability(device))
    heads = int(config.get_text_config().num_attention_heads)
    # Without packed linears the artifact was built to keep float32.
    dtype = torch.bfloat16 if weights.linears else torch.float32
    return TritonOperators(device, dtype, heads, hosted=hosted)


def _fastest(config: Any, weights: Weights, *, in_parts: str | None) -> str:
    try:
        kernels()
    except CompilerMissing as error:
        log.warning("running on torch alone, which is slow: %s", error)
        return "torch"
    why = why_not_native(config) if weights.linears else "its weights are not packed"
    why = in_parts or why
    if why is not None:
        log.info("running layer by layer: %s", why)
        return "transformers"
    return "native"
