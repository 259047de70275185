"""The operators of a model on a GPU; see `ops.triton` for what has run and what has not."""

from __future__ import annotations

import torch

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.models.operators import Step
from tidegate_runtime.ops.batch import StepBatch
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.triton.attention import TILE_TOKENS
from tidegate_runtime.ops.triton.cache import DeviceBatch, Tiling, TritonCache, TritonPool
from tidegate_runtime.ops.triton.linear import TritonLinear


class TritonOperators:
    """Linears and attention on a GPU, or, for tests, on the processor under the interpreter.

    `heads` is the number of query heads. Weights of 16 bits multiply through torch. Linears over
    `hosted` weights keep these in the host's memory, until they are told what else to use.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        heads: int,
        tiling: Tiling | None = None,
        hosted: frozenset[PackedLinear] = frozenset(),
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._heads = heads
        self._hosted = hosted
        # In float32 a tile of keys takes twice the memory that the cores of a GPU share.
        tokens = TILE_TOKENS if dtype.itemsize == 2 else TILE_TOKENS // 2
        self._tiling = tiling or Tiling(tokens=tokens)
        self._tile_rows = 0
        self._pools: list[TritonPool] = []

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `TritonLinear`, or a `DenseLinear` for weights of 16 bits."""
        kind = DenseLinear if packed.bits == 16 else TritonLinear
        device = torch.device("cpu") if packed in self._hosted else self.device
        return kind(packed, device, self.dtype)

    def allocate(self, shape: KvShape, kv: str, blocks: int) -> None:
        """Make the pools of all layers."""
        self._tile_rows = self._tiling.tile_rows(self._heads // shape.kv_heads)
        dims = (shape.key_dim, shape.value_dim)
        self._pools = [
            TritonPool(blocks, shape.kv_heads, dims, kv, self.device) for _ in range(shape.layers)
        ]

    def pool_tensors(self) -> list[torch.Tensor]:
        """Their memory."""
        return [tensor for pool in self._pools for tensor in pool.tensors]

    def step(self, batch: StepBatch) -> Step:
        """Bring a batch to the device, in one transfer."""
        moved = DeviceBatch(batch, self._tile_rows, self.device)
        cache = TritonCache(self._pools, moved, self._tiling)
        return Step(moved.tokens, moved.positions, moved.wanted, cache)


class DenseLinear(torch.nn.Module):
    """A linear whose weight keeps its values, in `dtype` on `device`."""

    def __init__(self, packed: PackedLinear, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._weight = packed.values().to(device, dtype)
        self._bias = None if packed.bias is None else packed.bias.to(device, dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, out]`."""
        return torch.nn.functional.linear(inputs, self._weight, self._bias)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight."""
        return self._weight[indices]

    def weights(self) -> tuple[torch.Tensor, ...]:
        """Where they lie."""
        return (self._weight,)

    def use(self, weights: tuple[torch.Tensor, ...]) -> None:
        """Compute with these from now on."""
        (self._weight,) = weights
