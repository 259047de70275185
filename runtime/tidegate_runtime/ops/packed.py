"""One packed linear of a model: its tensors as the kernels read them, and its values for torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tidegate_runtime.ops.quantized import (
    PANEL,
    QuantizedWeight,
    dequantize,
    quantize_activations,
    unpack,
)


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """A weight `[out, inputs]` of 4, 8 or 16 bits (see ops/quantized.py).

    `bias` is float32 `[out]` or None.
    """

    tensors: Mapping[str, torch.Tensor]
    bias: torch.Tensor | None
    out: int
    inputs: int
    bits: int

    @functools.cached_property
    def padded_bias(self) -> torch.Tensor | None:
        """The bias `[panels * 16]`, as the kernels add it."""
        if self.bias is None:
            return None
        return torch.nn.functional.pad(self.bias.float(), (0, -self.out % PANEL)).contiguous()

    def values(self) -> torch.Tensor:
        """The weight as float32 `[out, inputs]`, in memory of its own."""
        weight = unpack(self.tensors, self.out, self.bits)
        return dequantize(weight) if isinstance(weight, QuantizedWeight) else weight.float()

    def outputs(self, first: int, count: int) -> PackedLinear:
        """Some of the outputs, in the same memory. Both numbers are multiples of 16."""
        panels = slice(first // PANEL, (first + count) // PANEL)
        bias = None if self.bias is None else self.bias[first : first + count]
        tensors = {name: tensor[panels] for name, tensor in self.tensors.items()}
        return PackedLinear(tensors, bias, count, self.inputs, self.bits)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight as float32 `[len(indices), inputs]`, for embeddings."""
        panels, lanes = indices // PANEL, indices % PANEL
        # One panel a row, with its lane in front: unpacked as a weight of as many outputs.
        chosen = {
            name: tensor[panels, :, lanes].unsqueeze(2).expand(-1, -1, PANEL, *tensor.shape[3:])
            for name, tensor in self.tensors.items()
        }
        weight = unpack(chosen, len(indices) * PANEL, self.bits)
        dense = dequantize(weight) if isinstance(weight, QuantizedWeight) else weight.float()
        return dense[::PANEL]

    def rounded(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs with the precision that the product has: 8 bits a group, or bf16."""
        return inputs.bfloat16().float() if self.bits == 16 else quantize_activations(inputs)
