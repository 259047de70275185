"""Compile every Triton kernel for Hopper as a served model launches it; no GPU is needed.

Run by `test_triton_compiles.py` in a process of its own, because under the interpreter, which the
other tests need, Triton compiles nothing.
"""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tidegate_runtime.ops.triton import attention, linear

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    **dict.fromkeys(("states", "query", "out", "inputs", "bias", "products", "values"), "*bf16"),
    **dict.fromkeys(("key_scales", "value_scales", "sums", "maxima", "weights"), "*fp32"),
    **dict.fromkeys(("positions", "starts", "tables", "tiles", "slots"), "*i32"),
    "codes": "*u8",
    "minimums": "*fp16",
    **dict.fromkeys(("scale_log2", "cap_log2"), "fp32"),
}


def compiled(kernel: Any, constants: dict[str, Any], **pointers: str) -> Any:
    types = {**POINTERS, **pointers}
    names = [parameter.name for parameter in kernel.params]
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
        {(place,): constants[name] for place, name in enumerate(names) if name in constants},
    )
    options = {"enable_fp_fusion": False}
    return triton.compile(source, target=HOPPER, options=options)


def main() -> None:
    dims = {"value_dim": 128, "padded_value_dim": 128}
    for pool, largest in (("*bf16", 0), ("*fp8e4nv", 448)):
        row = {"dim": 128, "padded_dim": 128, "block_tokens": 16, "largest_code": largest}
        compiled(attention.write_kernel, row, pool=pool, scales="*fp32")
        tile = {
            **dims,
            "group": 4,
            "padded_group": 4,
            "key_dim": 128,
            "padded_key_dim": 128,
            "scaled": largest > 0,
            "window": 4096 if largest else 0,
            "capped": largest > 0,
            "block_tokens": 16,
            "tile_rows": attention.TILE_ROWS,
            "tile_tokens": attention.TILE_TOKENS,
            "split_tokens": attention.SPLIT_TOKENS,
        }
        built = compiled(attention.attend_kernel, tile, keys=pool, values=pool)
        print("attend", pool, "wgmma" in built.asm["ptx"], built.metadata.shared)
    compiled(attention.combine_kernel, {**dims, "split_tokens": attention.SPLIT_TOKENS})
    for bits in (8, 4):
        tile = {"bits": bits, "tile_outs": 32, "tile_groups": 2}
        compiled(linear.dequantize_kernel, tile, scales="*fp16")
        product = {**tile, "has_bias": True, "tile_rows": 16}
        built = compiled(linear.product_kernel, product, scales="*fp16")
        print("product", bits, "mma.sync" in built.asm["ptx"], built.metadata.shared)


if __name__ == "__main__":
    main()
