"""bitsandbytes' layouts (Dettmers et al. 2022, 2023), as transformers writes them to safetensors.

Of a layer `[out, in]` in 4 bits, cut along its rows laid end to end into blocks of `blocksize`:
`weight` has two codes a byte, the first in the high half; `weight.quant_map` float32 `[16]` has the
level of each code (those of NF4 or FP4), and `weight.absmax` `[blocks]` what a block's levels are
multiplied with. With double quantization that is uint8, an index into `weight.nested_quant_map`,
times `weight.nested_absmax` of its block of `nested_blocksize`, plus `nested_offset`.
`weight.quant_state.bitsandbytes__nf4` (`__fp4`) is JSON with these three numbers.

In 8 bits (LLM.int8): `weight` int8 `[out, in]`, and `SCB` float32 `[out]`, the largest of each
output: value = code · SCB / 127.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tidegate.spec.quantized import BITSANDBYTES_BITS
from tidegate_runtime.artifact.quantized.bits import grouped_weight
from tidegate_runtime.artifact.quantized.parts import Parts, Weight

_LEVELS = 16
_LARGEST, _MIDDLE = 127, 128
_STATES = ("nf4", "fp4")
_BY_ROW = 0
"""Of `weight_format`: others are the orders of older cards."""


@dataclass(frozen=True)
class FourBits:
    """Levels that are not evenly spaced, which the kernels' codes cannot be."""

    marker = "weight.quant_map"
    stored_bits = BITSANDBYTES_BITS

    def weight(self, parts: Parts) -> torch.Tensor:
        """The values of a layer, float32. Raises ModelRefused (BrokenModel)."""
        state = _state(parts)
        pairs = parts.need("weight", parts.out * parts.inputs // 2, 1).view(torch.uint8)
        codes = torch.cat((pairs >> 4, pairs & 15), dim=1).flatten()
        levels = parts.need("weight.quant_map", _LEVELS).float()[codes.long()]
        block = _positive(parts, state, "blocksize")
        largest = _largest(parts, state, -(-len(codes) // block))
        values = levels * largest[torch.arange(len(codes)) // block]
        return values.reshape(parts.out, parts.inputs)


@dataclass(frozen=True)
class EightBits:
    """One scale for each output."""

    marker = "SCB"
    stored_bits = BITSANDBYTES_BITS

    def weight(self, parts: Parts) -> Weight:
        """The weight of a layer. Raises ModelRefused (BrokenModel)."""
        form = parts.get("weight_format")
        if form is not None and bool((form != _BY_ROW).any()):
            raise parts.broken("has its codes in the order of a card (weight_format), not by row")
        codes = parts.need("weight", parts.out, parts.inputs).view(torch.int8).int()
        scales = parts.need("SCB", parts.out).float().unsqueeze(1) / _LARGEST
        zeros = torch.full_like(scales, _MIDDLE)
        return grouped_weight((codes + _MIDDLE).to(torch.uint8), scales, zeros, 8)


def _state(parts: Parts) -> Mapping[str, Any]:
    for name in _STATES:
        found = parts.get(f"weight.quant_state.bitsandbytes__{name}")
        if found is not None:
            try:
                state = json.loads(bytes(found.to(torch.uint8).tolist()))
            except ValueError as error:
                raise parts.broken(f"has a quant_state that is not JSON ({error})") from error
            return state if isinstance(state, dict) else {}
    raise parts.broken("lacks 'weight.quant_state.bitsandbytes__nf4' (or '__fp4')")


def _largest(parts: Parts, state: Mapping[str, Any], blocks: int) -> torch.Tensor:
    """float32 `[blocks]`."""
    stored = parts.need("weight.absmax", blocks)
    if stored.dtype != torch.uint8:
        return stored.float()
    block = _positive(parts, state, "nested_blocksize")
    levels = parts.need("weight.nested_quant_map", 256).float()[stored.long()]
    largest = parts.need("weight.nested_absmax", -(-blocks // block)).float()
    offset = float(state.get("nested_offset") or 0.0)
    return levels * largest[torch.arange(blocks) // block] + offset


def _positive(parts: Parts, state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if type(value) is not int or value < 1:
        raise parts.broken(f"has the {name} {value!r}")
    return value
