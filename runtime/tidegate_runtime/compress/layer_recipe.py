"""A recipe applied to one layer: smooth, prune, quantize, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tidegate_runtime.artifact.checkpoint import Weight
from tidegate_runtime.compress.awq import clip_and_round, search_scales
from tidegate_runtime.compress.gptq import gptq
from tidegate_runtime.compress.grid import round_to_nearest
from tidegate_runtime.compress.layer import Junction, Run, find_outlet, observe, rescale
from tidegate_runtime.compress.recipe import Recipe
from tidegate_runtime.compress.smoothquant import smoothing_scales
from tidegate_runtime.compress.sparsegpt import sparsegpt
from tidegate_runtime.compress.statistics import InputStatistics
from tidegate_runtime.compress.wanda import wanda
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize


@dataclass(frozen=True)
class LayerResult:
    """What became of a layer: its state by name, and what each linear lost, as a share of the
    energy of its output over the calibration text.
    """

    state: dict[str, Weight]
    errors: dict[str, float]


@torch.inference_mode()
def compress_layer(
    layer: torch.nn.Module, run: Run, texts: Sequence[torch.Tensor], recipe: Recipe
) -> LayerResult:
    """Apply a recipe to a layer, which computes with its new weights from then on.

    `texts` are what goes into it, `[1, window, hidden]` each. Raises ModelRefused.
    """
    junctions = observe(layer, run, texts)
    if recipe.smoothing is not None:
        for junction in junctions:
            _smooth(layer, run, texts[0], junction, recipe.smoothing)
    wanted = {
        name: _weight(layer, name).clone() for junction in junctions for name in junction.linears
    }
    for junction in junctions:
        for name in junction.linears:
            _set(layer, name, _pruned(_weight(layer, name), junction.inputs, recipe))
    if recipe.quantizer == "awq" and recipe.bits is not None:
        for junction in junctions:
            _protect(layer, run, texts[0], junction, wanted, recipe)
    coded: dict[str, Weight] = {}
    errors: dict[str, float] = {}
    for junction in junctions:
        for name in junction.linears:
            weight = _weight(layer, name)
            if recipe.bits is not None:
                codes = _quantized(weight, junction.inputs, recipe, recipe.bits)
                coded[f"{name}.weight"] = codes
                _set(layer, name, dequantize(codes))
            errors[name] = junction.inputs.error(_weight(layer, name), wanted[name])
    return LayerResult({**layer.state_dict(), **coded}, errors)


def _smooth(
    layer: torch.nn.Module, run: Run, text: torch.Tensor, junction: Junction, strength: float
) -> None:
    outlet = find_outlet(layer, run, text, junction)
    if outlet is not None:
        weights = [_weight(layer, name) for name in junction.linears]
        scales = smoothing_scales(weights, junction.inputs, strength)
        rescale(layer, junction.linears, outlet, scales)
        junction.inputs.divide(scales)


def _protect(
    layer: torch.nn.Module,
    run: Run,
    text: torch.Tensor,
    junction: Junction,
    wanted: dict[str, torch.Tensor],
    recipe: Recipe,
) -> None:
    """Scale what rounding shall spare; `wanted` follows, so that errors compare like with like."""
    outlet = find_outlet(layer, run, text, junction)
    if outlet is None or recipe.bits is None:
        return
    weights = [_weight(layer, name) for name in junction.linears]
    with_zero = recipe.pruner is not None
    scales = search_scales(weights, junction.inputs, recipe.bits, with_zero=with_zero)
    rescale(layer, junction.linears, outlet, scales)
    junction.inputs.divide(scales)
    if outlet.name in wanted:
        wanted[outlet.name] /= scales.unsqueeze(1)
    for name in junction.linears:
        wanted[name] *= scales


def _pruned(weight: torch.Tensor, inputs: InputStatistics, recipe: Recipe) -> torch.Tensor:
    if recipe.sparsity is None:
        return weight
    if recipe.pruner == "wanda":
        return wanda(weight, inputs, recipe.sparsity)
    return sparsegpt(weight, inputs, recipe.sparsity, damping=recipe.damping)


def _quantized(
    weight: torch.Tensor, inputs: InputStatistics, recipe: Recipe, bits: int
) -> QuantizedWeight:
    with_zero = recipe.pruner is not None
    if recipe.quantizer == "gptq":
        return gptq(
            weight,
            inputs,
            bits,
            with_zero=with_zero,
            act_order=recipe.act_order,
            damping=recipe.damping,
        )
    if recipe.quantizer == "awq":
        return clip_and_round(weight, inputs, bits, with_zero=with_zero)
    return round_to_nearest(weight, bits, with_zero=with_zero)


def _weight(layer: torch.nn.Module, name: str) -> torch.Tensor:
    weight = layer.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight.data


def _set(layer: torch.nn.Module, name: str, values: torch.Tensor) -> None:
    parameter = layer.get_submodule(name).weight
    assert isinstance(parameter, torch.nn.Parameter)
    parameter.data = values
