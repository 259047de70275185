"""The values that a weight may take: one grid for each group of 32 inputs of an output.

Where weights were pruned, zero must be on the grid, and 4 bits between least and largest do not
promise that. There the grid is `scale * (code - zero)` with a whole `zero`, and the scale keeps 7
bits of its mantissa: its product with a whole number up to 15 is then exact in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight, quantize

_COARSE = 16
"""Units in the last place of fp16 that make one of a scale with 7 bits."""
_LEVELS = 15
_LOWEST = {4: 0, 8: 1}
_HIGHEST = {4: 15, 8: 255}


@dataclass
class Grid:
    """value = scale * code + minimum, float32 `[out, groups]`, both exact in 16 bits."""

    scales: torch.Tensor
    minimums: torch.Tensor
    bits: int

    @classmethod
    def fit(cls, weight: torch.Tensor, bits: int, *, with_zero: bool = False) -> Grid:
        """The grid that covers each group of `[out, in]` from its least to its largest."""
        if bits == 4 and with_zero:
            return _through_zero(weight)
        found = quantize(weight, bits)
        scales = found.scales.float()
        minimums = scales * -128 if found.minimums is None else found.minimums.float()
        return cls(scales, minimums, bits)

    def codes(self, values: torch.Tensor, group: int) -> torch.Tensor:
        """The nearest codes of `[out]` values in one group, float32."""
        scales = self.scales[:, group]
        steps = (values - self.minimums[:, group]) / torch.where(scales == 0, 1.0, scales)
        return steps.round().clamp(_LOWEST[self.bits], _HIGHEST[self.bits])

    def values(self, codes: torch.Tensor, group: int) -> torch.Tensor:
        """What codes `[out]` of one group stand for."""
        return codes * self.scales[:, group] + self.minimums[:, group]

    def replace(self, group: int, other: Grid) -> None:
        """Take the only group of another grid."""
        self.scales[:, group] = other.scales[:, 0]
        self.minimums[:, group] = other.minimums[:, 0]

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """Every value of `[out, in]` to its nearest."""
        groups = weight.reshape(len(weight), -1, GROUP)
        scales = torch.where(self.scales == 0, 1.0, self.scales).unsqueeze(-1)
        codes = ((groups - self.minimums.unsqueeze(-1)) / scales).round()
        return self.coded(codes.clamp(_LOWEST[self.bits], _HIGHEST[self.bits]).reshape_as(weight))

    def coded(self, codes: torch.Tensor) -> QuantizedWeight:
        """The weight with these codes `[out, in]`."""
        minimums = self.minimums.half() if self.bits == 4 else None
        return QuantizedWeight(codes.to(torch.uint8), self.scales.half(), minimums, self.bits)


def round_to_nearest(weight: torch.Tensor, bits: int, *, with_zero: bool) -> QuantizedWeight:
    """Each weight of `[out, in]` by itself. With `with_zero`, zeros stay zeros."""
    return Grid.fit(weight, bits, with_zero=with_zero).quantize(weight)


def _through_zero(weight: torch.Tensor) -> Grid:
    groups = weight.reshape(len(weight), -1, GROUP)
    least, largest = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = _short((largest - least) / _LEVELS)
    zeros = torch.where(scales == 0, 0.0, -least / torch.where(scales == 0, 1.0, scales)).round()
    return Grid(scales, -scales * zeros.clamp(0, _LEVELS), 4)


def _short(scales: torch.Tensor) -> torch.Tensor:
    """The next scale in fp16 with 7 bits, so that it covers as much."""
    bits = scales.half().view(torch.int16).int() + _COARSE - 1
    return (bits & -_COARSE).to(torch.int16).view(torch.float16).float()
