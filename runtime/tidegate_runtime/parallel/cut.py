"""Parts of a linear layer: some of its outputs, or what some of its inputs add to all of them."""

from __future__ import annotations

import dataclasses

import torch

from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import GROUP, PANEL

_TOGETHER = {4: 8, 8: 4, 16: 2}
"""Inputs that lie side by side in `codes`, by bits."""


def some_outputs(packed: PackedLinear, part: range) -> PackedLinear:
    """The outputs `part`, which begins at a multiple of 16; the memory is that of the whole."""
    panels = slice(part.start // PANEL, -(-part.stop // PANEL))
    return dataclasses.replace(
        packed,
        tensors={name: tensor[panels] for name, tensor in packed.tensors.items()},
        bias=None if packed.bias is None else packed.bias[part.start : part.stop],
        out=len(part),
    )


def some_inputs(packed: PackedLinear, part: range) -> PackedLinear:
    """The inputs `part`, whole groups of 32, in memory of its own.

    The first part keeps the bias, so that the sum of all parts has it once.
    """
    tensors = {}
    for name, tensor in packed.tensors.items():
        unit = _TOGETHER[packed.bits] if name == "codes" else GROUP
        tensors[name] = tensor[:, part.start // unit : part.stop // unit].contiguous()
    bias = packed.bias if part.start == 0 else None
    return dataclasses.replace(packed, tensors=tensors, bias=bias, inputs=len(part))


def some_columns(weight: torch.Tensor, part: range) -> torch.Tensor:
    """Of a dense weight `[out, in]` the inputs `part`, in memory of its own."""
    return weight[:, part.start : part.stop].contiguous()
