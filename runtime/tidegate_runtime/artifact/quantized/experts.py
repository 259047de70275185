"""The experts of a mixture that were quantized one by one, as a stack of what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tidegate_runtime.artifact.expert_files import ExpertLayout
from tidegate_runtime.artifact.quantized.parts import Weight
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize


def expert_stack(
    layout: ExpertLayout,
    stack: str,
    shape: tuple[int, int, int],
    weight: Callable[[str, int, int], Weight],
) -> Weight:
    """A stack `[experts, out, in]`. `weight` reads a layer by its name, outputs and inputs.

    The codes are kept when every expert's are.
    """
    count, out, inputs = shape
    experts = []
    for number in range(count):
        layers = [name.removesuffix(".weight") for name in layout.parts(stack, number)]
        rows = [weight(layer, out // len(layers), inputs) for layer in layers]
        experts.append(_together(rows, torch.cat))
    return _together(experts, torch.stack)


def _together(
    weights: Sequence[Weight], join: Callable[[list[torch.Tensor]], torch.Tensor]
) -> Weight:
    codes = [each for each in weights if isinstance(each, QuantizedWeight)]
    if len(codes) < len(weights) or len({each.bits for each in codes}) > 1:
        return join(
            [dequantize(each) if isinstance(each, QuantizedWeight) else each for each in weights]
        )
    minimums = [each.minimums for each in codes if each.minimums is not None]
    return QuantizedWeight(
        join([each.codes for each in codes]),
        join([each.scales for each in codes]),
        join(minimums) if minimums else None,
        codes[0].bits,
    )
