"""The weights of a quantized checkpoint, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidegate_runtime.artifact.expert_files import layout_of
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.quantized.experts import expert_stack
from tidegate_runtime.artifact.quantized.parts import Parts
from tidegate_runtime.artifact.quantized.scheme import Scheme
from tidegate_runtime.artifact.safetensors import (
    StoredFiles,
    check_layers,
    misshapen,
    places_of,
)
from tidegate_runtime.models.experts import expert_stacks
from tidegate_runtime.ops.quantized import QuantizedWeight

_WEIGHT = ".weight"


def quantized_tensors(
    root: Path, model: Any, scheme: Scheme
) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
    """The weights of `model` (an empty one) by state name; what the files lack is left out.

    Raises ModelRefused (BrokenModel).
    """
    places = guarded(root, lambda: places_of(root))
    check_layers(root, places, model.config)
    layers = {
        name.removesuffix(f".{scheme.marker}")
        for name in places
        if name.endswith(f".{scheme.marker}")
    }
    stacks = expert_stacks(model)
    known = places.keys() | {f"{layer}{_WEIGHT}" for layer in layers}
    layout = layout_of(stacks, known) if stacks else None
    with StoredFiles(root, places) as files:
        stored = _Stored(files, places, layers, scheme)
        for name, tensor in model.state_dict().items():
            if layout is not None and name in stacks:
                yield name, expert_stack(layout, name, stacks[name], stored.weight)
                continue
            place = name if layout is None else layout.name(name)
            layer = place.removesuffix(_WEIGHT)
            if place.endswith(_WEIGHT) and tensor.dim() == 2 and layer in layers:
                yield name, stored.weight(layer, *tensor.shape)
            elif place in places:
                yield name, files.read(place)


@dataclass(frozen=True)
class _Stored:
    """Layers of the files, of which those in `layers` are quantized."""

    files: StoredFiles
    places: Mapping[str, Path]
    layers: set[str]
    scheme: Scheme

    def weight(self, layer: str, out: int, inputs: int) -> torch.Tensor | QuantizedWeight:
        """`[out, in]`. Raises ModelRefused (BrokenModel)."""
        if layer in self.layers:
            return self.scheme.weight(Parts(layer, out, inputs, self._find))
        name = f"{layer}{_WEIGHT}"
        found = self.files.read(name)
        if tuple(found.shape) != (out, inputs):
            raise misshapen(name, tuple(found.shape), (out, inputs))
        return found

    def _find(self, name: str) -> torch.Tensor | None:
        return self.files.read(name) if name in self.places else None
