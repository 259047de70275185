"""Which format a checkpoint's `quantization_config` names; what is not read is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from tidegate.spec.quantized import (
    METHODS,
    codes_name,
    method_fault,
    most_bits,
    torchao_fault,
    torchao_tensors,
)
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.quantized.awq import Awq
from tidegate_runtime.artifact.quantized.bitsandbytes import EightBits, FourBits
from tidegate_runtime.artifact.quantized.compressed import Compressed
from tidegate_runtime.artifact.quantized.fp8 import Fp8
from tidegate_runtime.artifact.quantized.gptq import Gptq
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.artifact.quantized.torchao import Torchao
from tidegate_runtime.artifact.safetensors import metadata_of, places_of
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight

_BITS = (4, 8)
_FULL_BITS = 16
_TILE = (128, 128)
_PACKED = "pack-quantized"
_COMPRESSED = {_PACKED: "int", "int-quantized": "int", "float-quantized": "float"}


class Scheme(Protocol):
    """One format of quantized linears."""

    @property
    def marker(self) -> str:
        """The stored tensor by which a quantized layer is known."""

    @property
    def stored_bits(self) -> int:
        """Of a weight."""

    def weight(self, parts: Parts) -> torch.Tensor | QuantizedWeight:
        """The weight of one layer. Raises ModelRefused (BrokenModel)."""


def read_scheme(path: Path, config: Any) -> Scheme | None:
    """The format of a configuration's weights; None when they are not quantized.

    Raises ModelRefused (UnsupportedModel).
    """
    given = getattr(config, "quantization_config", None)
    if not given:
        return None
    said = dict(given) if isinstance(given, Mapping) else given.to_dict()
    if fault := method_fault({"quantization_config": said}):
        raise _refused(path, fault)
    return _METHODS[str(said["quant_method"])](path, said)


def _gptq(path: Path, said: Mapping[str, Any]) -> Scheme:
    bits = said.get("bits")
    if bits not in _BITS:
        raise _refused(path, f"has GPTQ weights of {bits} bits, and 4 and 8 are read")
    version = str(said.get("checkpoint_format") or "gptq")
    if version not in ("gptq", "gptq_v2"):
        raise _refused(path, f"has the checkpoint_format {version!r} of GPTQ, which is not read")
    return Gptq(int(bits), version == "gptq_v2")


def _awq(path: Path, said: Mapping[str, Any]) -> Scheme:
    bits = said.get("bits") or said.get("w_bit")
    version = str(said.get("version") or said.get("format") or "gemm").lower()
    if bits != 4 or version != "gemm":
        raise _refused(
            path, f"has AWQ weights of {bits} bits for {version!r}, and 4 bits for 'gemm' are read"
        )
    return Awq()


def _compressed(path: Path, said: Mapping[str, Any]) -> Scheme:
    groups = list((said.get("config_groups") or {}).values())
    weights = [dict(group.get("weights") or {}) for group in groups]
    kinds = {(each.get("num_bits"), each.get("type")) for each in weights}
    form = str(said.get("format"))
    if len(kinds) != 1:
        raise _refused(path, f"has weights of {len(kinds)} kinds in compressed-tensors, not of one")
    ((bits, kind),) = kinds
    if form == "naive-quantized":
        form = "float-quantized" if kind == "float" else "int-quantized"
    if _COMPRESSED.get(form) != kind or bits not in _BITS or (bits == 4 and form != _PACKED):
        raise _refused(
            path, f"has {bits}-bit {kind} weights in the format {form!r}, which is not read"
        )
    return Compressed(int(bits), form == _PACKED)


def _fp8(path: Path, said: Mapping[str, Any]) -> Scheme:
    height, width = said.get("weight_block_size") or _TILE
    del path
    return Fp8(int(height), int(width))


def _torchao(path: Path, said: Mapping[str, Any]) -> Scheme:
    try:
        tensors = torchao_tensors(guarded(path, lambda: metadata_of(path)))
    except ValueError as error:
        raise _refused(path, str(error)) from error
    if fault := torchao_fault(said.get("quant_type"), tensors):
        raise _refused(path, fault)
    stored = guarded(path, lambda: places_of(path))
    if lost := next((name for name in tensors if codes_name(name) not in stored), None):
        raise _refused(path, f"lacks {codes_name(lost)!r}, where torchao keeps {lost!r}")
    bits = most_bits(tensors.values())
    return Torchao(tensors, bits or _FULL_BITS)


def _bitsandbytes(path: Path, said: Mapping[str, Any]) -> Scheme:
    if said.get("load_in_4bit"):
        return FourBits()
    if said.get("load_in_8bit"):
        return EightBits()
    raise _refused(
        path, "is quantized by 'bitsandbytes' in neither 4 nor 8 bits, which is not read"
    )


_METHODS: Mapping[str, Callable[[Path, Mapping[str, Any]], Scheme]] = {
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "torchao": _torchao,
    "bitsandbytes": _bitsandbytes,
}


def _refused(path: Path, what: str) -> ModelRefused:
    return ModelRefused(
        "UnsupportedModel",
        f"{str(path)!r} {what}; read are {', '.join(METHODS)}: use one of these, its original "
        "weights, or a GGUF file",
    )
