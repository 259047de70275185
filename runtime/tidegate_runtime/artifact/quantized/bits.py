"""Small integers that lie side by side in int32 words, and weights made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight

WORD_BITS = 32
_MIDDLE = 128
"""The code of zero in 8 bits; see `ops.quantized`."""
_HALF_STEP = 2.0**-11
"""What rounding to fp16 changes at most, of a number in its normal range."""


def unpack_words(
    words: torch.Tensor, bits: int, dim: int, order: Sequence[int] | None = None
) -> torch.Tensor:
    """Codes of `bits` each, the lowest bits first, spread along `dim`: uint8.

    With an `order`, the place i of a word holds its element `order[i]`.
    """
    count = WORD_BITS // bits
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    spread = words.movedim(dim, -1).unsqueeze(-1) >> shifts & (1 << bits) - 1
    if order is not None:
        spread = spread[..., [order.index(i) for i in range(count)]]
    return spread.flatten(-2).movedim(-1, dim).to(torch.uint8)


def grouped_weight(
    codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int
) -> torch.Tensor | QuantizedWeight:
    """value = scale * (code - zero): codes `[out, in]`; scales and zeros `[out, groups]`.

    The codes are kept where the groups can be cut into those of the kernels: always for 4 bits
    (scale * zero is rounded to fp16, which loses nothing when zero is a power of two, as it is
    for symmetric weights), for 8 bits around zero. Otherwise the values, float32.
    """
    wide = _kernel_scales(codes, scales)
    if wide is not None and bits == 8 and bool((zeros == _MIDDLE).all()):
        return QuantizedWeight(codes, wide, None, 8)
    if wide is not None and bits == 4:
        return _four_bits(codes, wide, -scales.float() * zeros.float())
    index = _group_of(codes, scales)
    return (codes.float() - zeros.float()[:, index]) * scales.float()[:, index]


def shifted_weight(
    codes: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor
) -> torch.Tensor | QuantizedWeight:
    """value = scale * code + minimum: codes of 4 bits `[out, in]`, the others `[out, groups]`.

    As `grouped_weight`; the minimum is rounded to fp16.
    """
    wide = _kernel_scales(codes, scales)
    if wide is not None:
        return _four_bits(codes, wide, minimums.float())
    index = _group_of(codes, scales)
    return codes.float() * scales.float()[:, index] + minimums.float()[:, index]


def _four_bits(codes: torch.Tensor, wide: torch.Tensor, minimums: torch.Tensor) -> QuantizedWeight:
    repeats = wide.shape[1] // minimums.shape[1]
    return QuantizedWeight(codes, wide, minimums.half().repeat_interleave(repeats, dim=1), 4)


def _kernel_scales(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor | None:
    """The scales of groups of the kernels' size, fp16; None where these cannot hold the weight."""
    width = codes.shape[1] // scales.shape[1]
    if width % GROUP or not _fits_half(scales):
        return None
    return scales.half().repeat_interleave(width // GROUP, dim=1)


def _group_of(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    inputs, groups = codes.shape[1], scales.shape[1]
    return torch.arange(inputs) // (inputs // groups)


def _fits_half(scales: torch.Tensor) -> bool:
    """Whether fp16 has each scale, rounded at most as a number of its normal range is."""
    wide = scales.float()
    return bool(((scales.half().float() - wide).abs() <= wide.abs() * _HALF_STEP).all())
