"""Small integers that lie side by side in int32 words, and weights made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight

WORD_BITS = 32
_MIDDLE = 128
"""The code of zero in 8 bits; see `ops.quantized`."""


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
    inputs, groups = codes.shape[1], scales.shape[1]
    width = inputs // groups
    fits = width % GROUP == 0 and _fits_half(scales)
    if fits and (bits == 4 or bool((zeros == _MIDDLE).all())):
        repeats = width // GROUP
        wide = scales.half().repeat_interleave(repeats, dim=1)
        if bits == 8:
            return QuantizedWeight(codes, wide, None, 8)
        minimums = (-scales.float() * zeros.float()).half()
        return QuantizedWeight(codes, wide, minimums.repeat_interleave(repeats, dim=1), 4)
    index = torch.arange(inputs) // width
    return (codes.float() - zeros.float()[:, index]) * scales.float()[:, index]


def _fits_half(scales: torch.Tensor) -> bool:
    return bool((scales.half().float() == scales.float()).all())
