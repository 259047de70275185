"""SmoothQuant (Xiao et al. 2022): outliers move from the activations into the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tidegate_runtime.compress.statistics import InputStatistics

_LEAST = 1e-5


def smoothing_scales(
    weights: Sequence[torch.Tensor], inputs: InputStatistics, strength: float
) -> torch.Tensor:
    """What each input `[in]` is divided by: max|x|^strength / max|w|^(1 - strength), over the
    weights `[out, in]` that share it. Inputs that never were anything stay as they are.
    """
    largest = torch.cat(list(weights)).abs().amax(0).clamp(min=_LEAST)
    scales = inputs.largest.clamp(min=_LEAST) ** strength / largest ** (1 - strength)
    return torch.where(inputs.largest > 0, scales, 1.0)
