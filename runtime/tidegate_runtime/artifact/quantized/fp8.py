"""Float8 weights with a scale for each tile, as DeepSeek-V3 and Qwen3 publish them.

Of a layer `[out, in]`: `weight` of float8 e4m3, and `weight_scale_inv` float32 `[out / height,
in / width]`, rounded up, which multiplies in spite of its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidegate_runtime.artifact.quantized.parts import Parts


@dataclass(frozen=True)
class Fp8:
    """The size of a tile."""

    height: int
    width: int
    marker = "weight_scale_inv"
    stored_bits = 8

    def weight(self, parts: Parts) -> torch.Tensor:
        """The values of a layer, float32. Raises ModelRefused (BrokenModel)."""
        values = parts.need("weight", parts.out, parts.inputs)
        rows, columns = -(-parts.out // self.height), -(-parts.inputs // self.width)
        scales = parts.need("weight_scale_inv", rows, columns).float()
        row = torch.arange(parts.out) // self.height
        column = torch.arange(parts.inputs) // self.width
        return values.float() * scales[row][:, column]
