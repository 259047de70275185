"""Keys and values as the compiled kernels keep them."""

from __future__ import annotations

import torch

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.ops.abi import CacheStruct, address
from tidegate_runtime.ops.batch import BLOCK_TOKENS

KV_TYPES = {"fp32": 0, "bf16": 1, "int8": 2, "fp8": 3}
KV_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.uint8,
}
SCALED = frozenset({"int8", "fp8"})


class KvPool:
    """The keys and values of one layer: `blocks` blocks of 16 tokens, taken as they are written."""

    def __init__(self, blocks: int, kv_heads: int, head_dim: int, kv: str) -> None:
        size = (blocks, kv_heads, BLOCK_TOKENS, head_dim)
        self._keys = torch.empty(size, dtype=KV_DTYPES[kv])
        self._values = torch.empty(size, dtype=KV_DTYPES[kv])
        self._scales = torch.empty(blocks, kv_heads, 2, BLOCK_TOKENS) if kv in SCALED else None
        self.struct = CacheStruct(*map(address, (self._keys, self._values, self._scales)))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Keys, values and, in 8 bits, scales: `[blocks, …]` each."""
        scales = [] if self._scales is None else [self._scales]
        return [self._keys, self._values, *scales]


def kv_shape(layers: int, kv_heads: int, head_dim: int, kv: str) -> KvShape:
    """What a token takes in pools of this kind."""
    return KvShape(
        layers=layers,
        kv_heads=kv_heads,
        key_dim=head_dim,
        value_dim=head_dim,
        item_bytes=KV_DTYPES[kv].itemsize,
        head_bytes=2 * torch.float32.itemsize if kv in SCALED else 0,
    )
