"""AWQ (Lin et al. 2023): the weights that large activations meet get finer steps.

An input's weights are multiplied by a scale and the input is divided by it, in whatever made it, so
that nothing but the rounding changes. Scales follow the mean magnitude of the input to a power that
is searched, and groups may give up their outermost values for finer steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tidegate_runtime.compress.gptq import better
from tidegate_runtime.compress.grid import Grid, round_to_nearest
from tidegate_runtime.compress.statistics import InputStatistics
from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight, dequantize

_POWERS = tuple(step / 20 for step in range(20))
_SHRINKS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_LEAST = 1e-4


def search_scales(
    weights: Sequence[torch.Tensor], inputs: InputStatistics, bits: int, *, with_zero: bool
) -> torch.Tensor:
    """The scales `[in]` with which rounding weights `[out, in]` of one input costs least.

    The cost is the error of their own outputs over the text, from the second moments; the paper
    runs the block instead. One is among the scales tried, so the result is never worse than it.
    """
    weight = torch.cat(list(weights))

    def cost(scales: torch.Tensor) -> float:
        rounded = dequantize(round_to_nearest(weight * scales, bits, with_zero=with_zero))
        return float(inputs.energy(rounded / scales - weight).sum())

    magnitude = inputs.mean.clamp(min=_LEAST)
    return min((_normalized(magnitude**power) for power in _POWERS), key=cost)


def clip_and_round(
    weight: torch.Tensor, inputs: InputStatistics, bits: int, *, with_zero: bool
) -> QuantizedWeight:
    """Round `[out, in]`, each group within the range that costs its own part of the output least.

    Groups are judged alone; where that misleads, the output's row keeps its plain rounding.
    """
    plain = round_to_nearest(weight, bits, with_zero=with_zero)
    groups = weight.reshape(len(weight), -1, GROUP)
    within = _diagonal_blocks(inputs.hessian)
    best, cost = weight, _group_cost(weight, dequantize(plain), within)
    for shrink in _SHRINKS:
        low, high = groups.amin(-1, keepdim=True) * shrink, groups.amax(-1, keepdim=True) * shrink
        clipped = torch.minimum(torch.maximum(groups, low), high).reshape_as(weight)
        rounded = dequantize(Grid.fit(clipped, bits, with_zero=with_zero).quantize(weight))
        found = _group_cost(weight, rounded, within)
        gains = (found < cost).repeat_interleave(GROUP, dim=1)
        best, cost = torch.where(gains, clipped, best), torch.minimum(found, cost)
    chosen = Grid.fit(best, bits, with_zero=with_zero).quantize(weight)
    return better(weight, inputs, plain, chosen)


def _normalized(scales: torch.Tensor) -> torch.Tensor:
    """Around one, so that the scaled weights stay in the range of 16 bits."""
    return scales / (scales.max() * scales.min()).sqrt()


def _diagonal_blocks(hessian: torch.Tensor) -> torch.Tensor:
    """The second moments of each group with itself: `[groups, 32, 32]`."""
    count = len(hessian) // GROUP
    blocks = hessian.reshape(count, GROUP, count, GROUP)
    return blocks[torch.arange(count), :, torch.arange(count)]


def _group_cost(weight: torch.Tensor, rounded: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
    """What each group's own error puts into the output: `[out, groups]`."""
    missed = (rounded - weight).reshape(len(weight), -1, GROUP)
    return (torch.einsum("ogi,gij->ogj", missed, within) * missed).sum(-1)
