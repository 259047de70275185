"""SparseGPT (Frantar & Alistarh 2023): prune, and let the weights that stay make up for it."""

from __future__ import annotations

import torch

from tidegate_runtime.compress.sparsity import Sparsity
from tidegate_runtime.compress.statistics import InputStatistics
from tidegate_runtime.compress.surgeon import BLOCK, inverse_root, sweep


def sparsegpt(
    weight: torch.Tensor, inputs: InputStatistics, sparsity: Sparsity, *, damping: float
) -> torch.Tensor:
    """`[out, in]` with weights set to zero by their score w² / U², U the root of the inverse
    Hessian, and the others changed. Each block of columns, or run of a pattern, is chosen as the
    sweep reaches it; within it, row by row.
    """
    upper = inverse_root(inputs.hessian, damping)
    pivots = upper.diagonal()
    gone = torch.zeros_like(weight, dtype=torch.bool)
    run = sparsity.of or BLOCK

    def settle(place: int, rest: torch.Tensor) -> torch.Tensor:
        if place % run == 0:
            ahead = rest[:, :run]
            width = ahead.shape[1]
            scores = (ahead / pivots[place : place + width]).square()
            gone[:, place : place + width] = sparsity.removed(scores)
        return rest[:, 0].masked_fill(gone[:, place], 0.0)

    return sweep(weight, upper, settle)
