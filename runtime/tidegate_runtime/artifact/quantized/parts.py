"""The stored tensors of one linear layer, asked for by name and shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight

Weight = torch.Tensor | QuantizedWeight
"""What a layer is read into: its values, or its codes where the kernels can hold them."""


@dataclass(frozen=True)
class Parts:
    """What a file holds of the linear layer `layer`, which is `[out, in]`."""

    layer: str
    out: int
    inputs: int
    read: Callable[[str], torch.Tensor | None]
    """By the full name of a tensor; None when there is none."""

    def get(self, part: str) -> torch.Tensor | None:
        """One tensor, if there is one."""
        return self.read(f"{self.layer}.{part}")

    def need(self, part: str, *shape: int) -> torch.Tensor:
        """One tensor of a shape; -1 stands for any size. Raises ModelRefused (BrokenModel)."""
        found = self.get(part)
        if found is None:
            raise self.broken(f"lacks {part!r}")
        if found.dim() != len(shape) or any(
            wanted not in (-1, size) for wanted, size in zip(shape, found.shape, strict=True)
        ):
            raise self.broken(
                f"has {part!r} of the shape {list(found.shape)}, and its layer asks for "
                f"{[size if size >= 0 else 'any' for size in shape]}"
            )
        return found

    def broken(self, what: str) -> ModelRefused:
        """The refusal of this layer."""
        return ModelRefused(
            "BrokenModel", f"the quantized layer {self.layer!r} {what}; fetch the model again"
        )

    def check_groups(self, groups: int) -> None:
        """Raises ModelRefused when the inputs cannot be cut into so many equal groups."""
        if groups < 1 or self.inputs % groups:
            raise self.broken(f"has {groups} groups for {self.inputs} inputs")
