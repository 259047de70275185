"""Layers in the host's memory, copied to a device while others compute there.

Two slots on the device take turns: a copy into one runs on a stream of its own while the layer in
the other computes. It has run on processors, where streams and events do nothing, and not yet on a
GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from tidegate_runtime.offload.residency import SLOTS

Weights = tuple[torch.Tensor, ...]


@runtime_checkable
class MovableLinear(Protocol):
    """A linear whose weights may lie elsewhere at each step."""

    def weights(self) -> Weights:
        """Where they lie now."""

    def use(self, weights: Weights) -> None:
        """Compute with these from now on."""


class PinnedLayers:
    """See `offload.streamer.Shelf`. All `layers` have linears of the same shapes, on the host."""

    def __init__(self, device: torch.device, layers: Mapping[int, Sequence[MovableLinear]]) -> None:
        self._backend = torch.cuda if device.type == "cuda" else torch.cpu
        self._layers = layers
        pinned = device.type == "cuda"
        self._host = {
            number: [
                _pinned(linear.weights()) if pinned else linear.weights() for linear in linears
            ]
            for number, linears in layers.items()
        }
        first = next(iter(self._host.values()))
        self._slots = [
            [tuple(torch.empty_like(part, device=device) for part in each) for each in first]
            for _ in range(SLOTS)
        ]
        self._stream = self._backend.Stream()
        self._copied = [self._backend.Event() for _ in range(SLOTS)]
        self._computed = [self._backend.Event() for _ in range(SLOTS)]
        self._slot_of: dict[int, int] = {}

    def bring(self, layer: int) -> None:
        """Begin to copy it into a slot that no layer has."""
        slot = next(slot for slot in range(SLOTS) if slot not in self._slot_of.values())
        self._slot_of[layer] = slot
        with self._backend.stream(self._stream):
            self._stream.wait_event(self._computed[slot])
            for target, source in zip(self._slots[slot], self._host[layer], strict=True):
                for to, part in zip(target, source, strict=True):
                    to.copy_(part, non_blocking=True)
            self._copied[slot].record(self._stream)

    def wait(self, layer: int) -> None:
        """Let the device go on once the copy is there; the host does not wait."""
        slot = self._slot_of[layer]
        self._backend.current_stream().wait_event(self._copied[slot])
        for linear, weights in zip(self._layers[layer], self._slots[slot], strict=True):
            linear.use(weights)

    def drop(self, layer: int) -> None:
        """The slot is free once the device has come to here."""
        self._computed[self._slot_of.pop(layer)].record(self._backend.current_stream())


def _pinned(weights: Weights) -> Weights:
    return tuple(part.pin_memory() for part in weights)
