"""Brings layers while others compute, in the order that a step needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from tidegate_runtime.offload.residency import SLOTS


class Shelf(Protocol):
    """Where the weights of streamed layers are; each layer by its number.

    At most `SLOTS` layers were brought and not dropped.
    """

    def bring(self, layer: int) -> None:
        """Begin to make a layer's weights usable; does not wait."""

    def wait(self, layer: int) -> None:
        """Return when a layer that was brought can compute."""

    def drop(self, layer: int) -> None:
        """Give back the memory of a layer that has computed."""


class Streamer:
    """Hooks into the layers `streamed` of a model, at least two of them.

    As one of them begins, the next is brought: after the last comes the first, for the next step.
    A run that stops early, or fails, leaves another one than is wanted next; that costs its wait.
    """

    def __init__(
        self, layers: Sequence[torch.nn.Module], streamed: Sequence[int], shelf: Shelf
    ) -> None:
        self._shelf = shelf
        self._next = dict(zip(streamed, (*streamed[1:], streamed[0]), strict=True))
        self._brought: list[int] = []
        for number in streamed:
            layers[number].register_forward_pre_hook(self._entering(number))
            layers[number].register_forward_hook(self._leaving(number))
        self._bring(streamed[0])

    def _entering(self, number: int) -> Any:
        def enter(_module: torch.nn.Module, _inputs: Any) -> None:
            if number not in self._brought:
                while len(self._brought) >= SLOTS:
                    self._drop(self._brought[0])
                self._bring(number)
            self._shelf.wait(number)
            following = self._next[number]
            if following not in self._brought and len(self._brought) < SLOTS:
                self._bring(following)

        return enter

    def _leaving(self, number: int) -> Any:
        def leave(_module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
            self._drop(number)

        return leave

    def _bring(self, number: int) -> None:
        self._brought.append(number)
        self._shelf.bring(number)

    def _drop(self, number: int) -> None:
        self._brought.remove(number)
        self._shelf.drop(number)
