"""Wanda (Sun et al. 2023): prune by a weight's magnitude times that of its input."""

from __future__ import annotations

import torch

from tidegate_runtime.compress.sparsity import Sparsity
from tidegate_runtime.compress.statistics import InputStatistics


def wanda(weight: torch.Tensor, inputs: InputStatistics, sparsity: Sparsity) -> torch.Tensor:
    """`[out, in]` with the weights of the smallest scores |w| · ‖x‖ set to zero, row by row."""
    scores = weight.abs() * inputs.hessian.diagonal().sqrt()
    return weight.masked_fill(sparsity.removed(scores), 0.0)
