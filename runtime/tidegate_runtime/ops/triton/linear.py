"""Products with packed weights on a GPU: codes are read, values are made in registers.

Codes lie `[out, in]` for 8 bits. For 4 bits they lie `[out, in / 2]`, and byte j of a group's 16
holds code j in its low half and code j + 16 in its high half, so that either half of the bytes
multiplies with inputs that follow each other. Scales and minimums are fp16 `[out, in / 32]`.

Few rows (`FEW_ROWS`) read the codes, which is what decoding waits for; many rows multiply with
values made once for the call, by torch. A row's order of sums differs between the two, so only
among few rows is a result the same in any company.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import GROUP, QuantizedWeight, dequantize, unpack

FEW_ROWS = 32
_TILE_ROWS = 16
_TILE_OUTS = 32
_TILE_GROUPS = 2


@triton.jit
def _values(
    codes: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    out: tl.tensor,
    byte: tl.tensor,
    outs: tl.tensor,
    groups: tl.tensor,
    bits: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The float32 values of some bytes of some outputs, `[bytes, outs]`: for 4 bits those of the
    low and of the high halves, for 8 bits the same twice. Beyond the weight they are zero.
    """
    group_bytes: tl.constexpr = 4 * bits
    group = byte // group_bytes
    known = (group < groups)[:, None] & (out < outs)[None, :]
    start = out.to(tl.int64) * groups
    code = tl.load(codes + (start * group_bytes)[None, :] + byte[:, None], known, 0)
    place = start[None, :] + group[:, None]
    scale = tl.load(scales + place, known, 0.0).to(tl.float32)
    if bits == 8:
        low = (code.to(tl.float32) - 128.0) * scale
        high = low
    else:
        least = tl.load(minimums + place, known, 0.0).to(tl.float32)
        low = (code & 15).to(tl.float32) * scale + least
        high = (code >> 4).to(tl.float32) * scale + least
    return low, high


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    inputs: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    bias: tl.tensor,
    products: tl.tensor,
    rows: tl.tensor,
    outs: tl.tensor,
    groups: tl.tensor,
    bits: tl.constexpr,
    has_bias: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_outs: tl.constexpr,
    tile_groups: tl.constexpr,
) -> None:
    """`[rows, 32 * groups]` times a weight `[outs, 32 * groups]` → `[rows, outs]`."""
    group_bytes: tl.constexpr = 4 * bits
    row = tl.program_id(0) * tile_rows + tl.arange(0, tile_rows)
    out = tl.program_id(1) * tile_outs + tl.arange(0, tile_outs)
    total = tl.zeros([tile_rows, tile_outs], tl.float32)
    for first in range(0, groups, tile_groups):
        byte = first * group_bytes + tl.arange(0, tile_groups * group_bytes)
        low, high = _values(codes, scales, minimums, out, byte, outs, groups, bits)
        column = byte // group_bytes * 32 + byte % group_bytes
        given = inputs + row[:, None] * groups * 32 + column[None, :]
        known = (row < rows)[:, None] & (column < groups * 32)[None, :]
        left = tl.load(given, known, 0.0)
        total = tl.dot(left, low.to(left.dtype), total, input_precision="ieee")
        if bits == 4:
            right = tl.load(given + 16, known, 0.0)
            total = tl.dot(right, high.to(right.dtype), total, input_precision="ieee")
    if has_bias:
        total += tl.load(bias + out, out < outs, 0.0).to(tl.float32)[None, :]
    place = products + row.to(tl.int64)[:, None] * outs + out[None, :]
    inside = (row < rows)[:, None] & (out < outs)[None, :]
    tl.store(place, total.to(products.dtype.element_ty), inside)


@triton.jit
def dequantize_kernel(
    codes: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    values: tl.tensor,
    outs: tl.tensor,
    groups: tl.tensor,
    bits: tl.constexpr,
    tile_outs: tl.constexpr,
    tile_groups: tl.constexpr,
) -> None:
    """The weight itself, `[outs, 32 * groups]`."""
    group_bytes: tl.constexpr = 4 * bits
    out = tl.program_id(0) * tile_outs + tl.arange(0, tile_outs)
    first = tl.program_id(1) * tile_groups
    byte = first * group_bytes + tl.arange(0, tile_groups * group_bytes)
    low, high = _values(codes, scales, minimums, out, byte, outs, groups, bits)
    column = byte // group_bytes * 32 + byte % group_bytes
    place = values + out.to(tl.int64)[None, :] * groups * 32 + column[:, None]
    known = (column < groups * 32)[:, None] & (out < outs)[None, :]
    tl.store(place, low.to(values.dtype.element_ty), known)
    if bits == 4:
        tl.store(place + 16, high.to(values.dtype.element_ty), known)


class TritonLinear(torch.nn.Module):
    """A linear over a weight of 4 or 8 bits, repacked for the device; it computes in `dtype`."""

    def __init__(self, packed: PackedLinear, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        weight = unpack(packed.tensors, packed.out, packed.bits)
        if not isinstance(weight, QuantizedWeight):
            raise ValueError(f"a weight of {packed.bits} bits has no codes; use torch's own linear")
        self._out, self._inputs, self._bits = packed.out, packed.inputs, packed.bits
        self._dtype = dtype
        self._codes = _repacked(weight).to(device)
        self._scales = weight.scales.to(device)
        self._minimums = self._scales if weight.minimums is None else weight.minimums.to(device)
        self._bias = None if packed.bias is None else packed.bias.to(device, dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, out]`."""
        rows = inputs.reshape(-1, self._inputs)
        if len(rows) > FEW_ROWS:
            products = torch.nn.functional.linear(rows, self.values(), self._bias)
        else:
            products = self._few(rows.contiguous())
        return products.reshape(*inputs.shape[:-1], self._out)

    def values(self) -> torch.Tensor:
        """The weight as `[out, in]` in memory of its own."""
        values = self._codes.new_empty(self._out, self._inputs, dtype=self._dtype)
        groups = self._inputs // GROUP
        grid = (triton.cdiv(self._out, _TILE_OUTS), triton.cdiv(groups, _TILE_GROUPS))
        dequantize_kernel[grid](
            *self._weight,
            values,
            self._out,
            groups,
            bits=self._bits,
            tile_outs=_TILE_OUTS,
            tile_groups=_TILE_GROUPS,
            enable_fp_fusion=False,
        )
        return values

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight, `[len(indices), in]`, for embeddings."""
        codes = _unpacked(self._codes[indices], self._bits)
        minimums = self._minimums[indices] if self._bits == 4 else None
        chosen = QuantizedWeight(codes, self._scales[indices], minimums, self._bits)
        return dequantize(chosen).to(self._dtype)

    def weights(self) -> tuple[torch.Tensor, ...]:
        """Where they lie: codes, scales, and minimums for 4 bits."""
        return self._weight if self._bits == 4 else self._weight[:2]

    def use(self, weights: tuple[torch.Tensor, ...]) -> None:
        """Compute with these from now on."""
        # Where there are no minimums the kernels get the scales for them, and do not look.
        self._codes, self._scales, self._minimums = *weights[:2], weights[-1]

    @property
    def _weight(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._codes, self._scales, self._minimums

    def _few(self, rows: torch.Tensor) -> torch.Tensor:
        products = rows.new_empty(len(rows), self._out)
        grid = (triton.cdiv(len(rows), _TILE_ROWS), triton.cdiv(self._out, _TILE_OUTS))
        product_kernel[grid](
            rows,
            *self._weight,
            rows if self._bias is None else self._bias,
            products,
            len(rows),
            self._out,
            self._inputs // GROUP,
            bits=self._bits,
            has_bias=self._bias is not None,
            tile_rows=_TILE_ROWS,
            tile_outs=_TILE_OUTS,
            tile_groups=_TILE_GROUPS,
            enable_fp_fusion=False,
        )
        return products


def _repacked(weight: QuantizedWeight) -> torch.Tensor:
    """Codes `[out, in]` as they lie on the device."""
    if weight.bits == 8:
        return weight.codes
    halves = weight.codes.reshape(len(weight.codes), -1, 2, GROUP // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)


def _unpacked(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes `[out, in]` behind those on the device."""
    if bits == 8:
        return codes
    pairs = codes.reshape(len(codes), -1, GROUP // 2)
    return torch.cat((pairs & 15, pairs >> 4), dim=-1).flatten(1)
