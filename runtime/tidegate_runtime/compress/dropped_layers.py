"""Layer drop by block influence (ShortGPT, Men et al. 2024)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tidegate_runtime.artifact.checkpoint import Checkpoint, empty_model, skeleton_of
from tidegate_runtime.errors import ModelRefused


def influence(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """How much a layer turns its hidden states `[1, window, hidden]`: 1 - their mean cosine."""
    cosines = [
        torch.nn.functional.cosine_similarity(entering, leaving, dim=-1).mean()
        for entering, leaving in zip(before, after, strict=True)
    ]
    return 1.0 - float(torch.stack(cosines).mean())


def least_influential(influences: Sequence[float], count: int) -> tuple[int, ...]:
    """The layers that stay when the `count` with the least influence go, in their order."""
    ranked = sorted(range(len(influences)), key=lambda layer: influences[layer])
    return tuple(sorted(ranked[count:]))


def check_drop(count: int, layers: int) -> None:
    """Raises ModelRefused when nothing would be left."""
    if count >= layers:
        raise ModelRefused(
            "BadRecipe",
            f"--drop-layers {count} leaves nothing of a model with {layers} layers; drop "
            f"{layers - 1} at most",
        )


def with_layers(checkpoint: Checkpoint, kept: Sequence[int]) -> Checkpoint:
    """The checkpoint of a model with these layers only; its weights are still the source's."""
    config = copy.deepcopy(checkpoint.config)
    _shorten(config.get_text_config(), kept)
    empty = empty_model(checkpoint.path, config)
    return replace(
        checkpoint, config=config, empty=empty, skeleton=skeleton_of(checkpoint.path, empty)
    )


def _shorten(config: Any, kept: Sequence[int]) -> None:
    """The number of layers, and every list with an entry for each (`layer_types` and the like)."""
    count = int(config.num_hidden_layers)
    for name, value in config.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:
            setattr(config, name, [value[layer] for layer in kept])
    config.num_hidden_layers = len(kept)
