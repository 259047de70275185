"""The layers of a decoder from transformers, one at a time: nothing else of it needs memory.

The model is made without its weights. One pass over it, with layers that do nothing, finds what the
model gives to each of them besides the hidden states (masks, positions), which only depends on the
length of a window.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]

from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.errors import ModelRefused


class DecoderLayers:
    """The layers of a configuration's model, and how it calls them for windows of one length.

    Raises ModelRefused for a model without a plain list of layers.
    """

    def __init__(self, path: Path, config: Any) -> None:
        def make() -> Any:
            with init_empty_weights(include_buffers=False):
                return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)

        self._path = path
        self._model = guarded(path, make).eval()
        count = int(config.get_text_config().num_hidden_layers)
        for name, module in self._model.named_modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                self.prefix = f"{name}."
                self._layers = module
                break
        else:
            raise ModelRefused(
                "UnsupportedModel",
                f"{str(path)!r}: {type(self._model).__name__} has no list of {count} layers; build "
                "it with a precision only",
            )
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self._layers)

    @torch.inference_mode()
    def enter(
        self, around: Mapping[str, torch.Tensor], windows: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """What goes into the first layer for each window: `[1, window, hidden]`.

        `around` are the weights outside the layers by state name; windows are of one length.
        """
        self._model.load_state_dict(
            {name: tensor.float() for name, tensor in around.items()}, strict=False, assign=True
        )
        entered: list[torch.Tensor] = []
        for layer in self._layers:
            layer.forward = lambda hidden, *args, **given: self._record(hidden, args, given)
        try:
            for window in windows:
                self._calls.clear()
                guarded(self._path, partial(self._run, window))
                entered.append(self._entering)
        finally:
            for layer in self._layers:
                del layer.forward
        return entered

    def load(self, index: int, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """A layer with its weights in float32, by their names within it."""
        layer: torch.nn.Module = copy.deepcopy(self._layers[index])
        layer.load_state_dict(
            {name: tensor.float() for name, tensor in weights.items()}, assign=True
        )
        return layer.requires_grad_(requires_grad=False)

    def run(self, index: int, layer: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """What comes out of a layer: `[1, window, hidden]`."""
        args, given = self._calls[index]
        found = guarded(self._path, lambda: layer(hidden, *args, **given))
        output: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return output

    def _run(self, window: Sequence[int]) -> None:
        self._model.base_model(torch.tensor([list(window)]), use_cache=False)

    def _record(self, hidden: torch.Tensor, args: Any, given: Any) -> torch.Tensor:
        if not self._calls:
            self._entering = hidden
        self._calls.append((args, given))
        return hidden
