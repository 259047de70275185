"""What the tensors of a quantized checkpoint stand for, from its configuration and their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WORD_BITS = 32
FULL_BITS = 16
PACKED = (".qweight", ".weight_packed")
"""Tensors whose 32-bit words hold several weights each."""
BESIDE = (
    *(".scales", ".qzeros", ".g_idx"),
    *(".weight_scale", ".weight_scale_inv", ".weight_zero_point", ".weight_shape", ".weight_g_idx"),
    *(".input_scale", ".input_zero_point"),
)
"""Tensors that are no weights."""


def stored_bits(config: Mapping[str, Any]) -> int:
    """Of most weights; 16 where they are not quantized, or in a way that is not known here.

    Raises what reading something else than a configuration raises.
    """
    said = config.get("quantization_config") or {}
    groups = (said.get("config_groups") or {}).values()
    found = [said.get("bits"), said.get("w_bit"), *(g["weights"]["num_bits"] for g in groups)]
    if said.get("quant_method") == "fp8":
        found.append(8)
    return next((int(bits) for bits in found if bits), FULL_BITS)


def weight_counts(shapes: Mapping[str, Sequence[int]], bits: int) -> dict[str, int]:
    """How many weights each tensor holds; those that hold none are left out."""
    return {
        name: math.prod(shape) * (WORD_BITS // bits if name.endswith(PACKED) else 1)
        for name, shape in shapes.items()
        if not name.endswith(BESIDE)
    }
