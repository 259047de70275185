"""Weights on disk, a file each, so that a model is read and made again layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tidegate_runtime.artifact.checkpoint import Weight
from tidegate_runtime.artifact.save import save_tensors
from tidegate_runtime.ops.quantized import QuantizedWeight

_SUFFIX = ".safetensors"
_VALUES = "values"


@dataclass(frozen=True)
class Spool:
    """A directory of weights by state name; codes stay codes."""

    directory: Path

    def names(self) -> Iterator[str]:
        """The state names in it."""
        for path in sorted(self.directory.glob(f"*{_SUFFIX}")):
            yield path.name.removesuffix(_SUFFIX)

    def write(self, name: str, weight: Weight) -> None:
        """Raises OSError when the disk is full."""
        save_tensors(_tensors(weight), self.directory / f"{name}{_SUFFIX}")

    def read(self, name: str) -> Weight:
        """Raises FileNotFoundError when there is none of that name."""
        tensors = load_file(self.directory / f"{name}{_SUFFIX}")
        if _VALUES in tensors:
            return tensors[_VALUES]
        minimums = tensors.get("minimums")
        bits = 8 if minimums is None else 4
        return QuantizedWeight(tensors["codes"], tensors["scales"], minimums, bits)


def _tensors(weight: Weight) -> dict[str, torch.Tensor]:
    if isinstance(weight, torch.Tensor):
        return {_VALUES: weight}
    found = {"codes": weight.codes, "scales": weight.scales, "minimums": weight.minimums}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
