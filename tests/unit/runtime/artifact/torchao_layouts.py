"""Linear layers as torchao 0.18 keeps them, and what transformers 5 writes of that to safetensors.

torchao is no dependency, since transformers imports it wherever it is found. Codes go to their
places one element at a time, by the subclasses' documentation and torch's CUDA source; see
docs/decisions/143 for the comparison with the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.unit.runtime.artifact.quantized_layouts import (
    Layout,
    Stored,
    int32,
    random_codes,
    random_scales,
    values_of,
)

Written = tuple[Stored, torch.Tensor]


def torchao(
    config: str,
    kind: str,
    parts: tuple[str, ...],
    write: Callable[[int, int], Written],
    **data: Any,
) -> Layout:
    """A subclass whose attributes are `data`; those that are callable are asked with the size."""

    def described(out: int, inputs: int) -> dict[str, Any]:
        said = {key: each(out, inputs) if callable(each) else each for key, each in data.items()}
        return {"_type": kind, "_data": said, "_tensor_data_names": list(parts)}

    quant_type = {"default": {"_type": config, "_version": 2, "_data": {}}}
    return Layout({"quant_method": "torchao", "quant_type": quant_type}, write, described)


def around_middle(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """scale * (code - 8) + zero, by group; all `[out, …]`."""
    group_of = torch.arange(codes.shape[1]) // (codes.shape[1] // scales.shape[1])
    return (codes.float() - 8) * scales.float()[:, group_of] + zeros.float()[:, group_of]


def random_middles(out: int, groups: int) -> torch.Tensor:
    made = torch.rand(out, groups) * 0.1 - 0.05
    return made.bfloat16()


def plain(group: int) -> Layout:
    def write(out: int, inputs: int) -> Written:
        codes, groups = random_codes(out, inputs, 4), inputs // group
        scales, zeros = random_scales(out, groups, torch.bfloat16), random_middles(out, groups)
        signed = [[code - 8 & 15 for code in row] for row in codes.tolist()]
        pairs = [[row[at] | row[at + 1] << 4 for at in range(0, inputs, 2)] for row in signed]
        stored = {
            "_weight_qdata": torch.tensor(pairs, dtype=torch.uint8).view(torch.int8),
            "_weight_scale": scales.T.contiguous(),
            "_weight_zero_point": zeros.T.contiguous(),
        }
        return stored, around_middle(codes, scales, zeros)

    return torchao(
        "Int4WeightOnlyConfig",
        "Int4Tensor",
        ("qdata", "scale", "zero_point"),
        write,
        block_size=[1, group],
        shape=size_of,
    )


def tile_words(codes: torch.Tensor) -> torch.Tensor:
    """The words of each lane, by `matrix_to_m16n8k16_Bint4_layout` of torch's `int4mm.cu`."""
    rows, (out, inputs) = codes.tolist(), codes.shape
    words = torch.zeros(out // 8, inputs // 128, 32, 4, dtype=torch.int32)
    for tile in range(out // 8):
        for outer in range(inputs // 128):
            for lane in range(32):
                for word in range(4):
                    first = outer * 128 + word * 32 + lane % 4 * 2
                    places = [first + at for at in (0, 1, 8, 9, 16, 17, 24, 25)]
                    found = [rows[tile * 8 + lane // 4][place] for place in places]
                    bits = sum(
                        found[of] << 4 * at for at, of in enumerate((0, 2, 4, 6, 1, 3, 5, 7))
                    )
                    words[tile, outer, lane, word] = int32(bits)
    return words


def tiles(group: int) -> Layout:
    def write(out: int, inputs: int) -> Written:
        groups = inputs // group
        codes = random_codes(out, inputs, 4)
        scales, zeros = random_scales(out, groups, torch.bfloat16), random_middles(out, groups)
        padding = (0, -inputs % 1024, 0, -out % 8)
        beside = torch.ones((inputs + padding[1]) // group, out + padding[3], 2).bfloat16()
        beside[:groups, :out] = torch.stack((scales.T, zeros.T), dim=-1)
        words = tile_words(torch.nn.functional.pad(codes, padding, value=3))
        stored = {"_weight_qdata": words, "_weight_scale_and_zero": beside}
        return stored, around_middle(codes, scales, zeros)

    return torchao(
        "Int4WeightOnlyConfig",
        "Int4TilePackedTo4dTensor",
        ("qdata", "scale_and_zero"),
        write,
        block_size=[1, group],
        shape=size_of,
    )


def size_of(out: int, inputs: int) -> list[int]:
    return [out, inputs]


def integers(
    kind: str, bits: int, group: int | None, dtype: torch.dtype, *, zeros: bool, **data: Any
) -> Layout:
    """Codes in a byte each; without a group one scale for each output."""

    def write(out: int, inputs: int) -> Written:
        groups, middle = inputs // group if group else 1, 1 << bits - 1
        codes = (random_codes(out, inputs, bits) - middle).to(torch.int8)
        scales = random_scales(out, groups, dtype)
        zero = torch.zeros(out, groups, dtype=torch.int8)
        if zeros:
            zero = torch.randint(-middle, middle, (out, groups)).to(torch.int8)
        stored = {"_weight_qdata": codes, "_weight_scale": scales, "_weight_zero_point": zero}
        return stored, values_of(codes, scales, zero, torch.arange(inputs) // (inputs // groups))

    return torchao("Int8WeightOnlyConfig", kind, ("qdata", "scale", "zero_point"), write, **data)


def floats(dtype: torch.dtype, *, by_row: bool) -> Layout:
    def write(out: int, inputs: int) -> Written:
        weight = torch.randn(out, inputs)
        codes, scales = weight.to(dtype), random_scales(out if by_row else 1, 1, torch.float32)
        return {"_weight_qdata": codes, "_weight_scale": scales}, codes.float() * scales

    return torchao(
        "Float8WeightOnlyConfig", "Float8Tensor", ("qdata", "scale"), write, mm_config=None
    )


def scaled_inputs(layout: Layout) -> Layout:
    """A layer whose inputs are multiplied first."""

    def write(out: int, inputs: int) -> Written:
        stored, values = layout.write(out, inputs)
        scales = torch.rand(inputs) + 0.5
        return {**stored, "_weight_act_pre_scale": scales}, values * scales

    return Layout(layout.config, write, layout.described)


INT4 = {"_type": "torch.dtype", "_data": "int4"}
INT8 = {"_type": "torch.dtype", "_data": "int8"}
INTX = "IntxUnpackedToInt8Tensor"
HALF, SINGLE = torch.bfloat16, torch.float32
TORCHAO = {
    "torchao int4 plain": plain(32),
    "torchao int4 plain 64": plain(64),
    "torchao int4 tiles": tiles(32),
    "torchao int4 tiles 64": tiles(64),
    "torchao int4 unpacked": integers(INTX, 4, 32, HALF, zeros=True, target_dtype=INT4),
    "torchao 8 unpacked": integers(INTX, 8, 32, HALF, zeros=False, target_dtype=INT8),
    "torchao int8": integers("Int8Tensor", 8, None, SINGLE, zeros=False),
    "torchao int8 groups": integers("Int8Tensor", 8, 64, HALF, zeros=False),
    "torchao int8 zeros": integers("Int8Tensor", 8, 32, HALF, zeros=True),
    "torchao fp8 rows": floats(torch.float8_e4m3fn, by_row=True),
    "torchao fp8 whole": floats(torch.float8_e5m2, by_row=False),
    "torchao int4 scaled": scaled_inputs(plain(32)),
}
TORCHAO_KEPT = {
    *("torchao int4 plain", "torchao int4 plain 64", "torchao int4 tiles", "torchao int4 tiles 64"),
    *("torchao int4 unpacked", "torchao 8 unpacked", "torchao int8", "torchao int8 groups"),
}
"""Those whose codes a build takes as they are."""
