"""What replaces the linears and the attention of a model from transformers, on one device.

`TorchOperators` need nothing but torch, `NativeOperators` the compiled kernels;
`models.triton` has those of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.ops import native, paged_attention
from tidegate_runtime.ops.batch import BLOCK_TOKENS, StepBatch
from tidegate_runtime.ops.kv_pool import KvPool
from tidegate_runtime.ops.packed import PackedLinear


class PackedModule(Protocol):
    """A linear over packed weights, which may also be the embeddings of a tied model."""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, out]`."""

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight, `[len(indices), in]`."""


@dataclass(frozen=True)
class Step:
    """One step on the device: `tokens`, `positions` and `wanted` int64, one-dimensional.

    `wanted` is never empty: transformers wants one row to project, and a lone chunk of a long
    prompt has none to give.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    cache: paged_attention.Cache


class Operators(Protocol):
    """Linears and attention on `device`; the model around them computes in `dtype`."""

    device: torch.device
    dtype: torch.dtype

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `PackedModule`."""

    def allocate(self, shape: KvShape, kv: str, blocks: int) -> None:
        """Make the pools of all layers."""

    def pool_tensors(self) -> list[torch.Tensor]:
        """Their memory, every tensor `[blocks, …]`."""

    def step(self, batch: StepBatch) -> Step:
        """Bring a batch to the device."""


class TorchOperators:
    """Torch alone, on the processor."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self._pools: list[paged_attention.TorchPool] = []

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `TorchModule`."""
        return TorchModule(packed)

    def allocate(self, shape: KvShape, kv: str, blocks: int) -> None:
        """Make the pools of all layers."""
        slots, dims = blocks * BLOCK_TOKENS, (shape.key_dim, shape.value_dim)
        self._pools = [
            paged_attention.TorchPool(slots, shape.kv_heads, dims, kv) for _ in range(shape.layers)
        ]

    def pool_tensors(self) -> list[torch.Tensor]:
        """Their memory."""
        return [tensor for pool in self._pools for tensor in pool.tensors]

    def step(self, batch: StepBatch) -> Step:
        """The batch as it is."""
        return _step(batch, paged_attention.TorchCache(self._pools, batch))


class NativeOperators:
    """The compiled kernels, on the processor; heads that they cannot take attend through torch."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, threads: native.Threads) -> None:
        self._threads = threads
        self._kv = ""
        self._pools: list[KvPool] = []
        self._torch = TorchOperators()

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `NativeModule`."""
        return NativeModule(packed, self._threads)

    def allocate(self, shape: KvShape, kv: str, blocks: int) -> None:
        """Make the pools of all layers."""
        if shape.key_dim != shape.value_dim or shape.key_dim % 16:
            self._torch.allocate(shape, kv, blocks)
            return
        self._kv = kv
        self._pools = [
            KvPool(blocks, shape.kv_heads, shape.key_dim, kv) for _ in range(shape.layers)
        ]

    def pool_tensors(self) -> list[torch.Tensor]:
        """Their memory."""
        if not self._pools:
            return self._torch.pool_tensors()
        return [tensor for pool in self._pools for tensor in pool.tensors]

    def step(self, batch: StepBatch) -> Step:
        """The batch as it is."""
        if not self._pools:
            return self._torch.step(batch)
        cache = paged_attention.NativeCache(self._threads, self._pools, batch, self._kv)
        return _step(batch, cache)


class TorchModule(torch.nn.Module):
    """A linear over packed weights on torch alone: it multiplies with their values."""

    def __init__(self, packed: PackedLinear) -> None:
        super().__init__()
        self._packed = packed
        self._values = packed.values()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` float32 → `[…, out]` float32."""
        rounded = self._packed.rounded(inputs)
        return torch.nn.functional.linear(rounded, self._values, self._packed.bias)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight, float32."""
        return self._packed.rows(indices)


class NativeModule(torch.nn.Module):
    """A linear over packed weights on the compiled kernels."""

    def __init__(self, packed: PackedLinear, threads: native.Threads) -> None:
        super().__init__()
        self._packed = packed
        self._linear = native.Linear(packed)
        self._threads = threads

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` float32 → `[…, out]` float32."""
        rows = self._linear.apply(self._threads, inputs.flatten(0, -2))
        return rows.reshape(*inputs.shape[:-1], -1)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows of the weight, float32."""
        return self._packed.rows(indices)


def _step(batch: StepBatch, cache: paged_attention.Cache) -> Step:
    tokens, positions = (torch.from_numpy(part).long() for part in (batch.tokens, batch.positions))
    wanted = torch.from_numpy(batch.wanted).long() if len(batch.wanted) else torch.zeros(1).long()
    return Step(tokens, positions, wanted, cache)
