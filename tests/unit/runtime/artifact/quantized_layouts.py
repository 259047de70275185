"""Linear layers as other programs write them quantized, and the values that they stand for.

Every value is made here from its code by the format's own formula, one element at a time where the
order of elements is what matters. The random numbers are torch's, so that no layer is like another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Stored = dict[str, torch.Tensor]
Scales = Callable[[int, int], torch.Tensor]
"""From outputs and groups to fp16 scales."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def int32(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def words(codes: list[int], bits: int) -> list[int]:
    """Codes side by side, the first in the lowest bits."""
    count = 32 // bits
    return [
        int32(sum(code << bits * place for place, code in enumerate(codes[start : start + count])))
        for start in range(0, len(codes), count)
    ]


def random_codes(out: int, inputs: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 1 << bits, (out, inputs))


def random_scales(out: int, groups: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    made = torch.rand(out, groups) * 0.02 + 0.005
    return made.to(dtype)


def short_scales(out: int, groups: int) -> torch.Tensor:
    """Of so few digits that fp16 holds their products with zeros of 4 bits."""
    return (torch.randint(64, 128, (out, groups)) * 2.0**-12).half()


def values_of(
    codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group_of: torch.Tensor
) -> torch.Tensor:
    """scale * (code - zero) of the group of each input; all `[out, …]`."""
    return (codes.float() - zeros.float()[:, group_of]) * scales.float()[:, group_of]


def random_zeros(out: int, groups: int, bits: int, *, symmetric: bool) -> torch.Tensor:
    if symmetric:
        return torch.full((out, groups), 1 << bits - 1)
    high = (1 << bits) - 1
    return torch.randint(1, high, (out, groups))


def gptq(
    bits: int,
    group: int,
    *,
    symmetric: bool,
    act_order: bool,
    version: int,
    scales_of: Scales = random_scales,
) -> Layout:
    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        codes, groups = random_codes(out, inputs, bits), inputs // group
        scales = scales_of(out, groups)
        zeros = random_zeros(out, groups, bits, symmetric=symmetric)
        index = torch.arange(inputs) // group
        if act_order:
            index = index[torch.randperm(inputs)]
        stored_zeros = zeros - (1 if version == 1 else 0)
        stored = {
            "qweight": torch.tensor(
                [words(row, bits) for row in codes.tolist()], dtype=torch.int32
            ).T.contiguous(),
            "qzeros": torch.tensor(
                [words(row, bits) for row in stored_zeros.T.tolist()], dtype=torch.int32
            ),
            "scales": scales.T.contiguous(),
            "g_idx": index.int(),
        }
        return stored, values_of(codes, scales, zeros, index)

    form = "gptq" if version == 1 else "gptq_v2"
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "checkpoint_format": form}
    return Layout(config, write)


def awq(group: int, scales_of: Scales = random_scales) -> Layout:
    def spread(row: list[int]) -> list[int]:
        ordered = [
            row[start + AWQ_ORDER[place]] for start in range(0, len(row), 8) for place in range(8)
        ]
        return words(ordered, 4)

    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        codes, groups = random_codes(out, inputs, 4), inputs // group
        scales, zeros = scales_of(out, groups), random_zeros(out, groups, 4, symmetric=False)
        stored = {
            "qweight": torch.tensor([spread(row) for row in codes.T.tolist()], dtype=torch.int32),
            "qzeros": torch.tensor([spread(row) for row in zeros.T.tolist()], dtype=torch.int32),
            "scales": scales.T.contiguous(),
        }
        return stored, values_of(codes, scales, zeros, torch.arange(inputs) // group)

    return Layout({"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}, write)


def compressed(form: str, bits: int, kind: str, group: int | None, *, symmetric: bool) -> Layout:
    """By the library's own packing."""

    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        groups = inputs // group if group else 1
        scales = random_scales(out, groups, torch.bfloat16)
        index = torch.arange(inputs) // (inputs // groups)
        if kind == "float":
            weight = torch.randn(out, inputs)
            stored = weight.to(torch.float8_e4m3fn)
            return {"weight": stored, "weight_scale": scales}, stored.float() * scales.float()
        half = 1 << bits - 1
        codes = (random_codes(out, inputs, bits) - half).to(torch.int8)
        zeros = (random_zeros(out, groups, bits, symmetric=symmetric) - half).to(torch.int8)
        parts = {"weight_scale": scales}
        if form == "pack-quantized":
            from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

            parts["weight_packed"] = pack_to_int32(codes, bits)
            parts["weight_shape"] = torch.tensor([out, inputs])
            if not symmetric:
                parts["weight_zero_point"] = pack_to_int32(zeros, bits, packed_dim=0)
        else:
            parts["weight"] = codes
            if not symmetric:
                parts["weight_zero_point"] = zeros
        return parts, values_of(codes, scales, zeros, index)

    weights = {"num_bits": bits, "type": kind, "symmetric": symmetric, "group_size": group}
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    return Layout(config, write)


def fp8_tiles(height: int, width: int) -> Layout:
    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        weight = torch.randn(out, inputs)
        stored = weight.to(torch.float8_e4m3fn)
        scales = torch.rand(-(-out // height), -(-inputs // width)) + 0.5
        wide = scales.repeat_interleave(height, 0)[:out].repeat_interleave(width, 1)[:, :inputs]
        return {"weight": stored, "weight_scale_inv": scales}, stored.float() * wide

    return Layout({"quant_method": "fp8", "weight_block_size": [height, width]}, write)


@dataclass(frozen=True)
class Layout:
    """A format: the `quantization_config` that names it, and how it writes a layer."""

    config: dict[str, Any]
    write: Callable[[int, int], tuple[Stored, torch.Tensor]] = field(repr=False)
    """From a size to what is stored and the values `[out, in]`."""
    described: Callable[[int, int], dict[str, Any]] | None = field(default=None, repr=False)
    """From a size to what the metadata of the file says of the weight, where it does."""


LAYOUTS = {
    "gptq 4 sym": gptq(4, 32, symmetric=True, act_order=False, version=1),
    "gptq 4 asym 64": gptq(4, 64, symmetric=False, act_order=False, version=1),
    "gptq 4 act-order": gptq(4, 32, symmetric=False, act_order=True, version=1),
    "gptq v2 8 sym": gptq(8, 64, symmetric=True, act_order=False, version=2),
    "gptq 8 asym": gptq(8, 32, symmetric=False, act_order=False, version=1),
    "awq 32": awq(32),
    "awq 64": awq(64),
    "compressed int4 groups": compressed("pack-quantized", 4, "int", 32, symmetric=True),
    "compressed int4 asym": compressed("pack-quantized", 4, "int", 64, symmetric=False),
    "compressed int8 packed": compressed("pack-quantized", 8, "int", None, symmetric=True),
    "compressed int8 channel": compressed("int-quantized", 8, "int", None, symmetric=True),
    "compressed int8 asym": compressed("naive-quantized", 8, "int", 32, symmetric=False),
    "compressed fp8": compressed("float-quantized", 8, "float", None, symmetric=True),
    "fp8 tiles": fp8_tiles(48, 40),
}
KEPT = {
    *("gptq 4 sym", "gptq 4 asym 64", "gptq v2 8 sym", "awq 32", "awq 64"),
    *("compressed int4 groups", "compressed int4 asym"),
    *("compressed int8 packed", "compressed int8 channel"),
}
"""Those whose codes a build takes as they are."""
