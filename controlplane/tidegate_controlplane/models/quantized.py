"""What the tensors of a quantized checkpoint stand for, from its configuration and their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.spec.quantized import (
    BITSANDBYTES_BITS,
    METHODS,
    TorchaoTensor,
    codes_name,
    method_fault,
    most_bits,
    torchao_fault,
    torchao_tensors,
)
from tidegate_controlplane.models.source import SourceError

WORD_BITS = 32
FULL_BITS = 16
PACKED = (".qweight", ".weight_packed")
"""Tensors whose 32-bit words hold several weights each."""
BESIDE = (
    *(".scales", ".qzeros", ".g_idx"),
    *(".weight_scale", ".weight_scale_inv", ".weight_zero_point", ".weight_shape", ".weight_g_idx"),
    *(".input_scale", ".input_zero_point", ".SCB", ".weight_format"),
    *(".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"),
    *(".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"),
)
"""Tensors that are no weights."""
TORCHAO = "._weight_"
"""Within the names of what torchao keeps of a weight."""


def torchao_weights(
    config: Mapping[str, Any], metadata: Mapping[str, str]
) -> dict[str, TorchaoTensor]:
    """The weights that torchao quantized, none in other models.

    Raises SourceError for a quantization that is not read, by the name that a build gives it.
    """
    fault, found = method_fault(config), {}
    said = config.get("quantization_config") or {}
    if said.get("quant_method") == "torchao":
        try:
            found = torchao_tensors(metadata)
        except ValueError as error:
            raise _refused(str(error)) from error
        fault = torchao_fault(said.get("quant_type"), found)
    if fault:
        raise _refused(fault)
    return found


def stored_bits(config: Mapping[str, Any], torchao: Mapping[str, TorchaoTensor]) -> int:
    """Of most weights; 16 where they are not quantized.

    Raises what reading something else than a configuration raises.
    """
    said = config.get("quantization_config") or {}
    groups = (said.get("config_groups") or {}).values()
    found = [said.get("bits"), said.get("w_bit"), *(g["weights"]["num_bits"] for g in groups)]
    if said.get("quant_method") == "fp8":
        found.append(8)
    if said.get("quant_method") == "bitsandbytes":
        found.append(BITSANDBYTES_BITS)
    found.append(most_bits(torchao.values()))
    return next((int(bits) for bits in found if bits), FULL_BITS)


def weight_counts(
    shapes: Mapping[str, Sequence[int]], bits: int, torchao: Mapping[str, TorchaoTensor]
) -> dict[str, int]:
    """How many weights each tensor holds; those that hold none are left out."""
    plain = {
        name: math.prod(shape) * _in_element(name, shapes, bits)
        for name, shape in shapes.items()
        if not name.endswith(BESIDE) and not (torchao and TORCHAO in name)
    }
    return plain | {
        name: math.prod(told.shape or shapes.get(codes_name(name), (0,)))
        for name, told in torchao.items()
    }


def _in_element(name: str, shapes: Mapping[str, Sequence[int]], bits: int) -> int:
    """How many weights an element of a stored tensor holds."""
    if f"{name}.quant_map" in shapes:
        return 2  # of 4 bits in a byte: another storage is refused
    return WORD_BITS // bits if name.endswith(PACKED) else 1


def _refused(fault: str) -> SourceError:
    return SourceError(
        f"it {fault}; read are {', '.join(METHODS)}: use one of these, its original weights, or a "
        "GGUF file"
    )
