"""AWQ's layout (Lin et al. 2023), as AutoAWQ writes it for its GEMM kernels.

Of a layer `[out, in]`: `qweight` int32 `[in, out / 8]`, `qzeros` int32 `[groups, out / 8]`, and
`scales` fp16 `[groups, out]`. A word holds eight outputs in the order 0, 2, 4, 6, 1, 3, 5, 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidegate_runtime.artifact.quantized.bits import WORD_BITS, grouped_weight, unpack_words
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.ops.quantized import QuantizedWeight

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
BITS = 4


@dataclass(frozen=True)
class Awq:
    """Nothing in it differs between checkpoints that are read."""

    marker = "qweight"
    stored_bits = BITS

    def weight(self, parts: Parts) -> torch.Tensor | QuantizedWeight:
        """The weight of a layer. Raises ModelRefused (BrokenModel)."""
        words = parts.out * BITS // WORD_BITS
        codes = unpack_words(parts.need("qweight", parts.inputs, words), BITS, 1, ORDER)
        scales = parts.need("scales", -1, parts.out)
        groups = scales.shape[0]
        parts.check_groups(groups)
        zeros = unpack_words(parts.need("qzeros", groups, words), BITS, 1, ORDER)
        return grouped_weight(codes.T.contiguous(), scales.T, zeros.T, BITS)
