"""torchao's tensors, as transformers writes them to safetensors (see `tidegate.spec.quantized`).

Of a layer `[out, in]`, each part under the name `_weight_<part>`:

- Int4Tensor: `qdata` int8 `[out, in / 2]`, the even inputs in the low halves, codes -8..7;
  `scale` and `zero_point` `[groups, out]`: value = scale * code + zero_point;
- Int4TilePackedTo4dTensor: the same values, codes 0..15 less 8, in the order in which the lanes of
  a warp multiply them (torch's `_convert_weight_to_int4pack`); the layer is padded to 8 outputs and
  1024 inputs; `scale_and_zero` `[groups, out, 2]`;
- Int8Tensor and IntxUnpackedToInt8Tensor: `qdata` int8 `[out, in]`, `scale` and `zero_point` for
  each block: value = scale * (code - zero_point);
- Float8Tensor: `qdata` float8 `[out, in]` and `scale` for each block.

`act_pre_scale` `[in]` multiplies a layer's inputs, and so its weights. What is said of activations
(`act_quant_…`) is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tidegate.spec.quantized import TorchaoTensor
from tidegate_runtime.artifact.quantized.bits import (
    grouped_weight,
    shifted_weight,
    unpack_words,
)
from tidegate_runtime.artifact.quantized.parts import Parts, Weight
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize

_MIDDLE = 8
"""The code of zero in 4 bits."""
TILE_OUT, TILE_IN = 8, 1024
"""What a layer in tiles is padded to."""
_LANES, _WORDS, _WORD_IN = 32, 4, 32
"""Lanes of a warp, words of each for 128 inputs, and inputs that one word of all lanes covers."""
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Torchao:
    """The tensors of one checkpoint by state name, and the bits of most."""

    tensors: Mapping[str, TorchaoTensor]
    stored_bits: int
    marker = "_weight_qdata"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a layer. Raises ModelRefused (BrokenModel)."""
        told = self.tensors.get(f"{parts.layer}.weight")
        if told is None:
            raise parts.broken("has codes of torchao that the metadata of its file does not name")
        weight = _READERS[told.kind](parts, told.bits)
        inputs = parts.get("_weight_act_pre_scale")
        if inputs is None:
            return weight
        if inputs.numel() not in (1, parts.inputs):
            raise parts.broken(f"has '_weight_act_pre_scale' of the shape {list(inputs.shape)}")
        values = dequantize(weight) if isinstance(weight, QuantizedWeight) else weight
        return values * inputs.float().reshape(1, -1)


def _plain(parts: Parts, bits: int) -> Weight:
    del bits
    pairs = parts.need("_weight_qdata", parts.out, parts.inputs // 2).view(torch.uint8)
    halves = torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten(1)
    scales = parts.need("_weight_scale", -1, parts.out)
    parts.check_groups(scales.shape[0])
    zeros = parts.need("_weight_zero_point", scales.shape[0], parts.out)
    # A signed half and the same plus eight differ in the sign's bit alone.
    return _around_middle(halves ^ _MIDDLE, scales.T, zeros.T)


def _tiles(parts: Parts, bits: int) -> Weight:
    del bits
    out, inputs = -(-parts.out // TILE_OUT), -(-parts.inputs // TILE_IN)
    across = _WORDS * _WORD_IN
    shape = (out, inputs * TILE_IN // across, _LANES, _WORDS)
    words = parts.need("_weight_qdata", *shape)
    # A word covers 16 inputs twice; four lanes share each 16, with two pairs 8 apart for a lane.
    spread = unpack_words(words, 4, 3, _ORDER)
    spread = spread.reshape(out, shape[1], TILE_OUT, 4, _WORDS, 2, 2, 2)
    codes = spread.permute(0, 2, 1, 4, 5, 6, 3, 7).reshape(out * TILE_OUT, inputs * TILE_IN)
    beside = parts.need("_weight_scale_and_zero", -1, out * TILE_OUT, 2)
    width = inputs * TILE_IN // max(1, beside.shape[0])
    if not beside.shape[0] or parts.inputs % width:
        raise parts.broken(f"has {beside.shape[0]} groups for {inputs * TILE_IN} padded inputs")
    scales, zeros = beside[: parts.inputs // width, : parts.out].unbind(-1)
    return _around_middle(
        codes[: parts.out, : parts.inputs].contiguous(), scales.T.contiguous(), zeros.T.contiguous()
    )


def _around_middle(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Weight:
    """value = scale * (code - 8) + zero; codes `[out, in]`, the others `[out, groups]`."""
    return shifted_weight(codes, scales, zeros.float() - _MIDDLE * scales.float())


def _integers(parts: Parts, bits: int) -> Weight:
    codes = parts.need("_weight_qdata", parts.out, parts.inputs).int()
    middle = 1 << bits - 1
    if int(codes.min()) < -middle or int(codes.max()) >= middle:
        raise parts.broken(f"has codes that {bits} bits do not hold")
    scales = _by_group(parts, "_weight_scale")
    zeros = torch.zeros_like(scales)
    if parts.get("_weight_zero_point") is not None:
        zeros = _by_group(parts, "_weight_zero_point").float().expand_as(scales)
    return grouped_weight((codes + middle).to(torch.uint8), scales, zeros + middle, bits)


def _floats(parts: Parts, bits: int) -> Weight:
    del bits
    values = parts.need("_weight_qdata", parts.out, parts.inputs).float()
    scales = _by_group(parts, "_weight_scale").float()
    return values * scales.repeat_interleave(parts.inputs // scales.shape[1], dim=1)


def _by_group(parts: Parts, part: str) -> torch.Tensor:
    """`[out, groups]` of a part that has one number for each block of a weight."""
    found = parts.get(part)
    if found is None:
        raise parts.broken(f"lacks {part!r}")
    found = found.reshape(1, 1) if found.numel() == 1 else found
    if found.dim() != 2 or not len(found) or parts.out % len(found):
        raise parts.broken(f"has {part!r} of the shape {list(found.shape)}")
    parts.check_groups(found.shape[1])
    return found.repeat_interleave(parts.out // len(found), dim=0)


_READERS: Mapping[str, Callable[[Parts, int], Weight]] = {
    "Int4Tensor": _plain,
    "Int4TilePackedTo4dTensor": _tiles,
    "Int8Tensor": _integers,
    "IntxUnpackedToInt8Tensor": _integers,
    "Float8Tensor": _floats,
}
