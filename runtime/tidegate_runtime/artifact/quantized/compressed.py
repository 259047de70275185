"""The layouts of compressed-tensors, which llm-compressor and vLLM share.

Of a layer `[out, in]`, with one scale for all, for each output, or for each group of inputs:

- `pack-quantized`: `weight_packed` int32 `[out, in · bits / 32]`, codes above the least value;
- `int-quantized` (and `naive-quantized`): `weight` int8 `[out, in]`;
- `float-quantized`: `weight` of float8 e4m3 `[out, in]`, de-quantized here;

with `weight_scale` and, for asymmetric weights, `weight_zero_point`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidegate_runtime.artifact.quantized.bits import WORD_BITS, grouped_weight, unpack_words
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.ops.quantized import QuantizedWeight


@dataclass(frozen=True)
class Compressed:
    """How the weights of one checkpoint were written."""

    bits: int
    is_packed: bool

    @property
    def marker(self) -> str:
        """A layer that has it is quantized, others are as they were."""
        return "weight_packed" if self.is_packed else "weight_scale"

    @property
    def stored_bits(self) -> int:
        return self.bits

    def weight(self, parts: Parts) -> torch.Tensor | QuantizedWeight:
        """The weight of a layer. Raises ModelRefused (BrokenModel)."""
        if parts.get("weight_g_idx") is not None:
            raise parts.broken("has its inputs in another order (weight_g_idx), which is not read")
        scales = self._scales(parts)
        if self.is_packed:
            width = parts.inputs * self.bits // WORD_BITS
            packed = parts.need("weight_packed", parts.out, width)
            codes = unpack_words(packed, self.bits, 1)
            return grouped_weight(codes, scales, self._packed_zeros(parts, scales), self.bits)
        values = parts.need("weight", parts.out, parts.inputs)
        if values.dtype != torch.int8:
            parts.check_groups(scales.shape[1])
            index = torch.arange(parts.inputs) // (parts.inputs // scales.shape[1])
            return values.float() * scales.float()[:, index]
        zeros = parts.get("weight_zero_point")
        middle = torch.full_like(scales, 128, dtype=torch.int32)
        if zeros is not None:
            middle = middle + zeros.int().reshape(scales.shape)
        codes = (values.int() + 128).to(torch.uint8)
        return grouped_weight(codes, scales, middle, 8)

    def _scales(self, parts: Parts) -> torch.Tensor:
        """`[out, groups]`."""
        scales = parts.get("weight_scale")
        if scales is None:
            raise parts.broken("lacks 'weight_scale'")
        if scales.numel() == 1:
            return scales.reshape(1, 1).expand(parts.out, 1)
        if scales.dim() == 1:
            scales = scales.unsqueeze(1)
        if scales.dim() != 2 or scales.shape[0] != parts.out:
            raise parts.broken(f"has 'weight_scale' of the shape {list(scales.shape)}")
        parts.check_groups(scales.shape[1])
        return scales

    def _packed_zeros(self, parts: Parts, scales: torch.Tensor) -> torch.Tensor:
        zeros = parts.get("weight_zero_point")
        if zeros is None:
            return torch.full_like(scales, 1 << self.bits - 1, dtype=torch.int32)
        if zeros.dtype == torch.int32 and zeros.shape[0] != parts.out:
            zeros = unpack_words(zeros, self.bits, 0)[: parts.out]
            return zeros.int().reshape(scales.shape)
        return zeros.int().reshape(scales.shape) + (1 << self.bits - 1)
