"""GPTQ's layout (Frantar et al. 2022), as AutoGPTQ and GPTQModel write it.

Of a layer `[out, in]`: `qweight` int32 `[in · bits / 32, out]`, `scales` fp16 `[groups, out]`,
`qzeros` int32 `[groups, out · bits / 32]`, and `g_idx` `[in]`, the group of each input. The first
version stores zeros less one. With act-order (`desc_act`) the groups are not contiguous; such a
weight is de-quantized, and rounded again by the build.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidegate_runtime.artifact.quantized.bits import WORD_BITS, grouped_weight, unpack_words
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.ops.quantized import QuantizedWeight


@dataclass(frozen=True)
class Gptq:
    """How one checkpoint was written."""

    bits: int
    is_second: bool
    """Version 2, whose zeros are stored as they are."""
    marker = "qweight"

    @property
    def stored_bits(self) -> int:
        return self.bits

    def weight(self, parts: Parts) -> torch.Tensor | QuantizedWeight:
        """The weight of a layer. Raises ModelRefused (BrokenModel)."""
        words = WORD_BITS // self.bits
        codes = unpack_words(parts.need("qweight", parts.inputs // words, parts.out), self.bits, 0)
        scales = parts.need("scales", -1, parts.out)
        groups = scales.shape[0]
        parts.check_groups(groups)
        stored = parts.need("qzeros", groups, parts.out // words)
        zeros = unpack_words(stored, self.bits, 1).int() + (0 if self.is_second else 1)
        index = parts.get("g_idx")
        if index is None or torch.equal(index.long(), _in_order(parts.inputs, groups)):
            return grouped_weight(codes.T.contiguous(), scales.T, zeros.T, self.bits)
        if index.shape != (parts.inputs,) or not bool(((index >= 0) & (index < groups)).all()):
            raise parts.broken(f"has a g_idx that is not of its {groups} groups")
        values = (codes.float() - zeros.float()[index]) * scales.float()[index]
        return values.T.contiguous()


def _in_order(inputs: int, groups: int) -> torch.Tensor:
    return torch.arange(inputs) // (inputs // groups)
