"""The weights of a quantized checkpoint, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.artifact.quantized.scheme import Scheme
from tidegate_runtime.artifact.safetensors import StoredFiles, check_layers, places_of
from tidegate_runtime.ops.quantized import QuantizedWeight


def quantized_tensors(
    root: Path, model: Any, scheme: Scheme
) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
    """The weights of `model` (an empty one) by state name; what the files lack is left out.

    Raises ModelRefused (BrokenModel).
    """
    places = guarded(root, lambda: places_of(root))
    check_layers(root, places, model.config)
    linears = {
        name: (int(module.out_features), int(module.in_features))
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
    }
    with StoredFiles(root, places) as files:

        def read(name: str) -> torch.Tensor | None:
            return files.read(name) if name in places else None

        for name in model.state_dict():
            layer = name.removesuffix(".weight")
            if layer in linears and f"{layer}.{scheme.marker}" in places:
                yield name, scheme.weight(Parts(layer, *linears[layer], read))
            elif name in places:
                yield name, files.read(name)
