"""Through the model layer by layer: each sees the text as the new layers before it leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from tidegate_runtime.artifact.pack import as_values
from tidegate_runtime.compress.decoder_layers import DecoderLayers
from tidegate_runtime.compress.dropped_layers import influence
from tidegate_runtime.compress.layer_recipe import compress_layer
from tidegate_runtime.compress.recipe import Recipe
from tidegate_runtime.compress.spool import Spool
from tidegate_runtime.compress.work import Work

Windows = Sequence[Sequence[int]]
Told = Callable[[int, int], None]
"""Is told how many layers of how many are done."""


def measure_influence(
    layers: DecoderLayers, source: Spool, windows: Windows, told: Told
) -> list[float]:
    """The influence of every layer of the source on the text."""
    hidden = _enter(layers, source, windows)
    found = []
    for index in range(len(layers)):
        told(index, len(layers))
        layer = _load(layers, source, index)
        leaving = _leave(layers, index, layer, hidden)
        found.append(influence(hidden, leaving))
        hidden = leaving
    return found


def compress_layers(
    layers: DecoderLayers,
    work: Work,
    kept: Sequence[int],
    windows: Windows,
    recipe: Recipe,
    told: Told,
) -> None:
    """Apply a recipe to the layers that stay, from the first that is not done on.

    Raises ModelRefused, and OSError when the disk is full.
    """
    begun = work.done()
    entered = _enter(layers, work.source, windows)
    hidden = work.hidden() if begun else entered
    for done in range(begun, len(kept)):
        told(done, len(kept))
        index = kept[done]
        layer = _load(layers, work.source, index)
        result = compress_layer(layer, partial(layers.run, index), hidden, recipe)
        hidden = _leave(layers, index, layer, hidden)
        work.finish_layer(result.state, result.errors, hidden)
    told(len(kept), len(kept))


def _enter(layers: DecoderLayers, source: Spool, windows: Windows) -> list[torch.Tensor]:
    around = {
        name: as_values(source.read(name))
        for name in source.names()
        if not name.startswith(layers.prefix)
    }
    return layers.enter(around, windows)


def _load(layers: DecoderLayers, source: Spool, index: int) -> torch.nn.Module:
    prefix = f"{layers.prefix}{index}."
    return layers.load(
        index,
        {
            name.removeprefix(prefix): as_values(source.read(name))
            for name in source.names()
            if name.startswith(prefix)
        },
    )


@torch.inference_mode()
def _leave(
    layers: DecoderLayers, index: int, layer: torch.nn.Module, hidden: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    return [layers.run(index, layer, window) for window in hidden]
