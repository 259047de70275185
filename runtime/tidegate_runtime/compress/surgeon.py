"""The optimal brain surgeon, column by column: what one weight loses, those after it make up for.

Frantar & Alistarh, "Optimal Brain Compression" (2022); the order of columns and the blocks are
those of GPTQ (Frantar et al. 2022), which SparseGPT (2023) shares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tidegate_runtime.errors import ModelRefused

BLOCK = 128
"""Columns whose errors are moved on together."""
_TRIES = 6

Settle = Callable[[int, torch.Tensor], torch.Tensor]
"""Given a column's place and the block `[out, rest]` from it on, the final values `[out]`."""


def sweep(weight: torch.Tensor, upper: torch.Tensor, settle: Settle) -> torch.Tensor:
    """Settle every column of `[out, in]`; `upper` is the root of the inverse Hessian."""
    left, settled = weight.clone(), torch.empty_like(weight)
    columns = weight.shape[1]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        block, errors = left[:, start:end], torch.empty(len(weight), end - start)
        for place in range(start, end):
            at = place - start
            settled[:, place] = settle(place, block[:, at:])
            errors[:, at] = (block[:, at] - settled[:, place]) / upper[place, place]
            block[:, at:].addr_(errors[:, at], upper[place, place:end], alpha=-1)
        left[:, end:] -= errors @ upper[start:end, end:]
    return settled


def inverse_root(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper triangular U with UᵀU the inverse of the damped Hessian `[in, in]`.

    `damping` is a share of the mean diagonal; it grows tenfold while rounding leaves the matrix
    without a root. Raises ModelRefused (NoHessian) when that does not help.
    """
    damped = hessian.double()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1.0  # an input that never was anything: its weights are free
    mean = float(diagonal.mean())
    for _ in range(_TRIES):
        shifted = damped + torch.eye(len(damped), dtype=damped.dtype) * damping * mean
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            root, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                upper: torch.Tensor = root.float()
                return upper
        damping = max(damping * 10, 1e-4)
    raise ModelRefused(
        "NoHessian",
        f"the activations of a layer with {len(hessian)} inputs have no usable second moments; "
        "they may not be finite: use a longer --text, or method awq",
    )
