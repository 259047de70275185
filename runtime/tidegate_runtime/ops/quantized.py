"""Weights in groups of 32: how they are quantized, and how they lie in memory for the kernels.

A weight `[out, in]` is cut along `in` into groups of 32; value = scale * code + minimum, with codes
of 8 or 4 bits. These are the groups of GGUF's Q8_0, Q4_0 and Q4_1, so such files keep their codes.

In memory, 16 outputs make a panel, and four inputs of each lie side by side, as the instruction
that multiplies them wants it (VPDPBUSD; see `kernels.cpp`):

    bits 8    codes    uint8  [panels, in / 4, 16, 4]
    bits 4    codes    uint8  [panels, in / 8, 16, 4]   low nibbles, then high: 4 inputs each
    bits 16   codes    bf16   [panels, in / 2, 16, 2]   no groups
              scales   fp16   [panels, in / 32, 16]
              minimums fp16   [panels, in / 32, 16]     only for 4 bits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

GROUP = 32
PANEL = 16
_MIDDLE = 128
_TINY = 1e-30


@dataclass(frozen=True)
class QuantizedWeight:
    """value = scale * code + minimum, groups of 32 along `in`.

    `codes` uint8 `[out, in]`, 0..15 or 0..255; `scales` fp16 `[out, in / 32]`; `minimums` the same
    for 4 bits, None for 8, where the minimum is -128 times the scale. A stack of weights has one
    dimension more in front of all.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor | None
    bits: int

    def of_stack(self, number: int) -> QuantizedWeight:
        """One weight of a stack."""
        minimums = None if self.minimums is None else self.minimums[number]
        return QuantizedWeight(self.codes[number], self.scales[number], minimums, self.bits)


def quantize(weight: torch.Tensor, bits: int) -> QuantizedWeight:
    """Round `[out, in]` to codes of 8 bits around zero, or of 4 bits between least and largest.

    Raises ValueError for other bits, or when `in` is no multiple of 32.
    """
    groups = _groups(weight.float())
    if bits == 8:
        scales = (groups.abs().amax(-1) / (_MIDDLE - 1)).half()
        codes = groups / _divisor(scales) + _MIDDLE
        return QuantizedWeight(_codes(codes, 1, 255, weight), scales, None, bits)
    if bits == 4:
        minimums = groups.amin(-1).half()
        scales = ((groups.amax(-1) - minimums.float()) / 15).half()
        codes = (groups - minimums.float().unsqueeze(-1)) / _divisor(scales)
        return QuantizedWeight(_codes(codes, 0, 15, weight), scales, minimums, bits)
    raise ValueError(f"bits {bits} is not supported; use 8 or 4")


def dequantize(quantized: QuantizedWeight) -> torch.Tensor:
    """The values as float32 `[out, in]`; of a stack `[weights, out, in]`."""
    codes = _groups(quantized.codes.float())
    scales = quantized.scales.float().unsqueeze(-1)
    if quantized.minimums is None:
        values = (codes - _MIDDLE) * scales
    else:
        values = codes * scales + quantized.minimums.float().unsqueeze(-1)
    return values.flatten(-2)


def quantize_activations(inputs: torch.Tensor) -> torch.Tensor:
    """Round each group of 32 inputs to 255 steps around zero, as the kernels do; float32."""
    groups = inputs.float().reshape(*inputs.shape[:-1], -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > _TINY, (_MIDDLE - 1) / largest, 0.0)
    return (torch.round(groups * inverse) * (largest / (_MIDDLE - 1))).flatten(-2)


def pack(quantized: QuantizedWeight) -> dict[str, torch.Tensor]:
    """The tensors `codes`, `scales` and, for 4 bits, `minimums` as the kernels read them."""
    codes = _interleave(quantized.codes, 4)
    if quantized.bits == 4:
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    packed = {"codes": codes.contiguous(), "scales": _pack_groups(quantized.scales)}
    if quantized.minimums is not None:
        packed["minimums"] = _pack_groups(quantized.minimums)
    return packed


def pack_dense(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensor `codes` of a weight that keeps its values, in bf16."""
    _groups(weight)
    return {"codes": _interleave(weight.to(torch.bfloat16), 2).contiguous()}


def unpack(
    tensors: Mapping[str, torch.Tensor], out: int, bits: int
) -> QuantizedWeight | torch.Tensor:
    """The weight behind packed tensors; for 16 bits the values themselves, bf16 `[out, in]`."""
    codes = tensors["codes"]
    if bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), dim=2).flatten(1, 2)
    codes = codes.transpose(1, 2).flatten(2).flatten(0, 1)[:out]
    if bits == 16:
        return codes.contiguous()
    minimums = tensors.get("minimums")
    return QuantizedWeight(
        codes.contiguous(),
        _unpack_groups(tensors["scales"], out),
        None if minimums is None else _unpack_groups(minimums, out),
        bits,
    )


def _groups(weight: torch.Tensor) -> torch.Tensor:
    """`[..., out, in]` → `[..., out, in / 32, 32]`."""
    if weight.shape[-1] % GROUP:
        raise ValueError(
            f"a weight with {weight.shape[-1]} inputs cannot be cut into groups of {GROUP}; "
            "serve this model in precision fp32"
        )
    return weight.reshape(*weight.shape[:-1], -1, GROUP)


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """What to divide by: one where a group is constant, so that its codes come out as zero."""
    wide = scales.float()
    return torch.where(wide == 0, 1.0, wide).unsqueeze(-1)


def _codes(values: torch.Tensor, low: int, high: int, like: torch.Tensor) -> torch.Tensor:
    return values.round().clamp(low, high).to(torch.uint8).reshape(like.shape)


def _panels(rows: torch.Tensor) -> torch.Tensor:
    """`[out, n]` → `[panels, 16, n]`, padded with zeros."""
    missing = -rows.shape[0] % PANEL
    if missing:
        rows = torch.cat((rows, rows.new_zeros((missing, rows.shape[1]))))
    return rows.reshape(-1, PANEL, rows.shape[1])


def _interleave(rows: torch.Tensor, together: int) -> torch.Tensor:
    """`[out, in]` → `[panels, in / together, 16, together]`."""
    panels = _panels(rows)
    return panels.reshape(len(panels), PANEL, -1, together).transpose(1, 2)


def _pack_groups(values: torch.Tensor) -> torch.Tensor:
    return _panels(values).transpose(1, 2).contiguous()


def _unpack_groups(packed: torch.Tensor, out: int) -> torch.Tensor:
    return packed.transpose(1, 2).flatten(0, 1)[:out].contiguous()
