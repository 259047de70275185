"""How a model that does not fit is run: which of its layers are streamed, and from where."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.offload.mapped import MappedLayers
from tidegate_runtime.offload.pinned import MovableLinear, PinnedLayers
from tidegate_runtime.offload.residency import residency
from tidegate_runtime.offload.streamer import Shelf, Streamer
from tidegate_runtime.ops.packed import PackedLinear

log = logging.getLogger(__name__)

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Offload:
    """The packed linears of the layers that are streamed, by the layer's number and their name."""

    streamed: Mapping[int, Mapping[str, PackedLinear]]

    @property
    def linears(self) -> frozenset[PackedLinear]:
        """All of them."""
        return frozenset(one for linears in self.streamed.values() for one in linears.values())

    def from_file(self, file: Path, model: Any) -> None:
        """Have a model on the processor read its streamed layers from the mapped file."""
        tensors = {
            number: [part for linear in linears.values() for part in linear.tensors.values()]
            for number, linears in self.streamed.items()
        }
        self._connect(model, MappedLayers(file, tensors))

    def from_host(self, device: torch.device, model: Any) -> None:
        """Have a model on a GPU copy its streamed layers from the host's memory."""
        layers = model.get_decoder().layers
        movable = {
            number: [part for part in layers[number].modules() if isinstance(part, MovableLinear)]
            for number in self.streamed
        }
        self._connect(model, PinnedLayers(device, movable))

    def _connect(self, model: Any, shelf: Shelf) -> None:
        Streamer(model.get_decoder().layers, list(self.streamed), shelf)


def offload_of(weights: Weights, budget_bytes: int) -> Offload | None:
    """What to stream so that the weights take `budget_bytes` of memory; None when all fit.

    Raises ModelRefused when no choice does it.
    """
    layers: dict[int, dict[str, PackedLinear]] = {}
    beside = sum(tensor.nbytes for tensor in weights.tensors.values())
    for name, linear in weights.linears.items():
        if found := _LAYER.match(name):
            layers.setdefault(int(found[1]), {})[name] = linear
        else:
            beside += _bytes(linear)
    if not layers:
        raise ModelRefused(
            "CannotOffload",
            f"offload_bytes {budget_bytes}: only packed weights are brought layer by layer; use "
            "precision bf16, int8 or int4, or leave offload out",
        )
    sizes = [sum(map(_bytes, layers[number].values())) for number in sorted(layers)]
    chosen = residency(sizes, beside, budget_bytes)
    if not chosen.streamed:
        return None
    log.info(
        "%d of %d layers, %.3f GB, are brought anew at each step",
        *(len(chosen.streamed), len(sizes), chosen.step_bytes / 1e9),
    )
    return Offload({number: layers[number] for number in chosen.streamed})


def _bytes(linear: PackedLinear) -> int:
    bias = 0 if linear.bias is None else linear.bias.nbytes
    return bias + sum(tensor.nbytes for tensor in linear.tensors.values())
