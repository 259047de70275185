"""A look into a model from transformers: its first layers alone, and what its last one leaves."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tidegate_runtime.errors import ModelRefused


class WatchedNorm(torch.nn.Module):
    """A final norm that keeps what it is given, `[1, rows, hidden]`, until the next run."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self._norm = norm
        self.given = torch.empty(0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """As the norm itself."""
        self.given = hidden
        normal: torch.Tensor = self._norm(hidden)
        return normal


def watch_norm(model: Any) -> WatchedNorm:
    """Put a `WatchedNorm` in place of a model's final norm. Raises ModelRefused as below."""
    decoder = _layered(model)
    decoder.norm = WatchedNorm(decoder.norm)
    return decoder.norm  # type: ignore[no-any-return]


def first_layers(model: Any, count: int) -> Any:
    """A model of the first `count` layers of another, with its embeddings, norm and head.

    Everything is shared with the other. Raises ModelRefused (UnsupportedSpeculation) for a model
    whose decoder is not a list of layers and a norm.
    """
    decoder = _part(_layered(model), layers=_layered(model).layers[:count])
    return _part(model, **{model.base_model_prefix: decoder})


def bare(model: Any) -> Any:
    """The decoder within a model, without its final norm: it gives hidden states."""
    return _part(_layered(model), norm=torch.nn.Identity())


def _layered(model: Any) -> Any:
    decoder = getattr(model, model.base_model_prefix, None)
    layers, norm = (getattr(decoder, name, None) for name in ("layers", "norm"))
    if isinstance(layers, torch.nn.ModuleList) and isinstance(norm, torch.nn.Module):
        return decoder
    raise ModelRefused(
        "UnsupportedSpeculation",
        f"{type(model).__name__} is not made of a list of layers and a norm after them, so it "
        "cannot be looked into; set runtime.speculation.method to 'ngram' or 'draft'",
    )


def _part(module: Any, **replaced: torch.nn.Module) -> Any:
    """The same module with some of its parts replaced, the original left as it is."""
    made = copy.copy(module)
    made._modules = {**module._modules, **replaced}
    return made
