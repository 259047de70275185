"""One decoder layer while a text runs through it: what goes into its linears, and where from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tidegate_runtime.compress.statistics import InputStatistics

Run = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
"""Runs a layer on hidden states `[1, window, hidden]`."""
_CLOSE = 1e-3
_SPREAD = 2.0


@dataclass(frozen=True)
class Junction:
    """Linears that read one input, and its statistics. `norm` is what made it, where that is a norm
    whose output they read as it is.
    """

    linears: tuple[str, ...]
    inputs: InputStatistics
    norm: str | None


@dataclass(frozen=True)
class Outlet:
    """What made a junction's input, so that its channels can be rescaled there.

    A norm's channels follow `weight + offset`, a linear's its rows.
    """

    name: str
    offset: float = 0.0

    def divide(self, layer: torch.nn.Module, scales: torch.Tensor) -> None:
        """Divide every channel by its scale `[channels]`."""
        module = layer.get_submodule(self.name)
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, torch.nn.Parameter)
        rows = scales if weight.dim() == 1 else scales.unsqueeze(1)
        weight.data = (weight.data + self.offset) / rows - self.offset
        if isinstance(bias, torch.nn.Parameter):
            bias.data = bias.data / scales


def linears_of(layer: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Its linear layers by name, those that an artifact packs."""
    return {name: part for name, part in layer.named_modules() if type(part) is torch.nn.Linear}


@torch.inference_mode()
def observe(layer: torch.nn.Module, run: Run, texts: Sequence[torch.Tensor]) -> list[Junction]:
    """Run every text through a layer and see what its linears read; those that are never run are in
    no junction.
    """
    with _watched(layer) as seen:
        run(layer, texts[0])
    made = {id(output): name for name, output in seen.norms}
    found: dict[int, Junction] = {}
    for name, given in seen.inputs:
        junction = found.get(id(given))
        if junction is None:
            found[id(given)] = Junction(
                (name,), InputStatistics(given.shape[-1]), made.get(id(given))
            )
        elif name not in junction.linears:
            found[id(given)] = Junction((*junction.linears, name), junction.inputs, junction.norm)
    junctions = list(found.values())
    _gather(layer, run, texts, junctions)
    return junctions


@torch.inference_mode()
def find_outlet(
    layer: torch.nn.Module, run: Run, text: torch.Tensor, junction: Junction
) -> Outlet | None:
    """Where the input of a junction can be rescaled so that the layer's output stays; None if
    nowhere. Every candidate is tried with random scales: no family's wiring is known here.
    """
    width = len(junction.inputs.mean)
    candidates = (
        [Outlet(junction.norm), Outlet(junction.norm, offset=1.0)]
        if junction.norm is not None
        else [
            Outlet(name)
            for name, linear in linears_of(layer).items()
            if linear.out_features == width and name not in junction.linears
        ]
    )
    if not candidates:
        return None
    generator = torch.Generator().manual_seed(0)
    scales = _SPREAD ** (torch.rand(width, generator=generator) * 2 - 1)
    wanted = run(layer, text)
    for outlet in candidates:
        trial = copy.deepcopy(layer)
        rescale(trial, junction.linears, outlet, scales)
        if bool((run(trial, text) - wanted).norm() <= _CLOSE * wanted.norm()):
            return outlet
    return None


def rescale(
    layer: torch.nn.Module, linears: Sequence[str], outlet: Outlet, scales: torch.Tensor
) -> None:
    """Divide what comes out of the outlet by `scales` `[in]`, and multiply what the linears make of
    it; the layer's output stays the same.
    """
    outlet.divide(layer, scales)
    for name in linears:
        weight = layer.get_submodule(name).weight
        assert isinstance(weight, torch.nn.Parameter)
        weight.data = weight.data * scales


@dataclass(frozen=True)
class _Seen:
    """In the order of the calls, with the tensors themselves, so that identity means something."""

    inputs: list[tuple[str, torch.Tensor]]
    norms: list[tuple[str, torch.Tensor]]


@contextmanager
def _watched(layer: torch.nn.Module) -> Iterator[_Seen]:
    seen = _Seen([], [])
    hooks = []
    for name, part in layer.named_modules():
        weight = getattr(part, "weight", None)
        if type(part) is torch.nn.Linear:
            hooks.append(part.register_forward_pre_hook(_keep_input(seen.inputs, name)))
        elif isinstance(weight, torch.nn.Parameter) and weight.dim() == 1:
            hooks.append(part.register_forward_hook(_keep_output(seen.norms, name)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _keep_input(kept: list[tuple[str, torch.Tensor]], name: str) -> Any:
    return lambda module, given: kept.append((name, given[0]))  # noqa: ARG005


def _keep_output(kept: list[tuple[str, torch.Tensor]], name: str) -> Any:
    return lambda module, given, output: kept.append((name, output))  # noqa: ARG005


def _gather(
    layer: torch.nn.Module,
    run: Run,
    texts: Sequence[torch.Tensor],
    junctions: Sequence[Junction],
) -> None:
    """Fill the statistics, a text at a time; the first linear of a junction speaks for all."""
    hooks = [
        layer.get_submodule(junction.linears[0]).register_forward_pre_hook(
            lambda module, given, inputs=junction.inputs: inputs.add(given[0])  # noqa: ARG005
        )
        for junction in junctions
    ]
    try:
        for text in texts:
            run(layer, text)
    finally:
        for hook in hooks:
            hook.remove()
