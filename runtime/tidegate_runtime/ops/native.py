"""The compiled kernels as Python objects: threads, linears, and a whole decoder step.

They work over the memory of torch tensors; each object keeps the tensors alive that its structures
point to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import byref

import numpy as np
import torch

from tidegate_runtime.ops.abi import (
    BatchStruct,
    HeadsStruct,
    LinearStruct,
    ModelStruct,
    RowsStruct,
    SoftmaxStruct,
    WantedStruct,
    address,
    kernels,
)
from tidegate_runtime.ops.batch import StepBatch, StepLogits
from tidegate_runtime.ops.kv_pool import KvPool
from tidegate_runtime.ops.low_rank import adapter_tables
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.shares import CHUNK, Floats, Places, Shares


class Threads:
    """A team of `count` threads, the caller one of them. One call at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.handle = kernels().tidegate_pool(count)

    def __del__(self) -> None:
        if handle := getattr(self, "handle", None):
            kernels().tidegate_pool_free(handle)


class Linear:
    """A packed linear on the kernels."""

    def __init__(self, packed: PackedLinear) -> None:
        self.packed = packed
        self.struct = LinearStruct(
            *(address(packed.tensors.get(name)) for name in ("codes", "scales", "minimums")),
            address(packed.padded_bias),
            packed.out,
            packed.inputs,
            packed.bits,
        )

    def apply(self, threads: Threads, inputs: torch.Tensor) -> torch.Tensor:
        """`[rows, in]` float32 → `[rows, out]` float32. Raises MemoryError."""
        inputs = inputs.contiguous()
        output = torch.empty(inputs.shape[0], self.packed.out)
        failed = kernels().tidegate_linear(
            threads.handle,
            byref(self.struct),
            address(inputs),
            inputs.shape[0],
            address(output),
        )
        if failed:
            raise MemoryError(f"no memory for a product of {inputs.shape[0]} rows")
        return output


class Batch:
    """A step's batch as the kernels read it."""

    def __init__(self, batch: StepBatch) -> None:
        self._arrays = [
            np.ascontiguousarray(array, dtype=np.int32)
            for array in (batch.tokens, batch.positions, batch.starts, batch.tables, batch.wanted)
        ]
        self.struct = BatchStruct(
            len(batch.tokens),
            len(batch.starts) - 1,
            batch.tables.shape[1],
            len(batch.wanted),
            *(array.ctypes.data for array in self._arrays),
        )
        if batch.adapters:
            self._tables = adapter_tables(batch.adapters)
            self.struct.adapters = self._tables.ctypes.data


def attention(
    threads: Threads,
    heads: HeadsStruct,
    pool: KvPool,
    batch: Batch,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
) -> torch.Tensor:
    """One layer: keys and values `[rows, kv_heads, head_dim]` into the pool, then attend.

    `query` and the result are `[rows, heads, head_dim]`, everything float32. Raises MemoryError.
    """
    query, key, value = (item.flatten(1).contiguous() for item in (query, key, value))
    out = torch.empty_like(query)
    parts = (query, key, value, out)
    rows = RowsStruct(*map(address, parts), *(part.shape[1] for part in parts))
    failed = kernels().tidegate_attention(
        threads.handle, byref(heads), byref(pool.struct), byref(batch.struct), byref(rows)
    )
    if failed:
        raise MemoryError(f"no memory for attention over {query.shape[0]} rows")
    return out.reshape(len(out), int(heads.heads), -1)


class NativeShares:
    """See `ops.shares.Shares`; the rows are read where they lie, one thread a row."""

    def __init__(
        self,
        threads: Threads,
        logits: torch.Tensor,
        places: Sequence[int],
        temperatures: Sequence[float],
    ) -> None:
        count, size = len(places), logits.shape[1]
        self.sums: Floats = np.empty((count, -(-size // CHUNK)), dtype=np.float32)
        self.highest: Floats = np.empty_like(self.sums)
        self._logits = logits
        self._rows = np.array(places, dtype=np.int32)
        self._heats = (1 / (math.log(2) * np.array(temperatures))).astype(np.float32)
        self._most = np.empty(count, dtype=np.float32)
        arrays = (self._rows, self._heats, self._most, self.sums, self.highest)
        pointers = (array.ctypes.data for array in arrays)
        self._struct = SoftmaxStruct(address(logits), *pointers, logits.stride(0), count, size)
        kernels().tidegate_shares(threads.handle, byref(self._struct))

    def inside(self, rows: Places, chunks: Places) -> Floats:
        """The shares `[n, 64]` of n chunks."""
        found = np.empty((len(rows), CHUNK), dtype=np.float32)
        given = (rows.astype(np.int32), chunks.astype(np.int32))
        pointers = (array.ctypes.data for array in given)
        kernels().tidegate_shares_inside(
            byref(self._struct), *pointers, len(rows), found.ctypes.data
        )
        return found


class DecoderStep:
    """A model whose whole step is one call.

    `kept` are the objects that own the memory behind `model`. With `watched` a step also gives
    the hidden states of its wanted rows.
    """

    def __init__(self, threads: Threads, model: ModelStruct, kept: Sequence[object]) -> None:
        self.watched = False
        self._threads = threads
        self._kept = kept
        self._layers = int(model.layers)
        self._vocabulary = int(model.vocabulary)
        self._hidden = int(model.hidden)
        self._logits = torch.empty(0, self._vocabulary)
        self._handle = kernels().tidegate_decoder(threads.handle, byref(model))

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            kernels().tidegate_decoder_free(handle)

    def __call__(self, batch: StepBatch, layers: int | None = None) -> StepLogits:
        """Run a batch through all layers, or the first `layers`. Raises MemoryError."""
        wanted = len(batch.wanted)
        if wanted > len(self._logits):
            self._logits = torch.empty(wanted, self._vocabulary)
        best = np.empty(wanted, dtype=np.int32)
        finite = np.empty(wanted, dtype=np.uint8)
        hidden = torch.empty(wanted, self._hidden) if self.watched else None
        asked = WantedStruct(
            layers or self._layers,
            address(hidden),
            address(self._logits),
            best.ctypes.data,
            finite.ctypes.data,
        )
        self._run(batch, asked)
        logits = self._logits[:wanted]
        return StepLogits(logits, best.tolist(), finite.astype(bool).tolist(), self._shares, hidden)

    def hidden(self, batch: StepBatch, layers: int) -> torch.Tensor:
        """What the first `layers` layers leave, `[wanted, hidden]`. Raises MemoryError."""
        found = torch.empty(len(batch.wanted), self._hidden)
        self._run(batch, WantedStruct(layers, address(found)))
        return found

    def _run(self, batch: StepBatch, asked: WantedStruct) -> None:
        given = Batch(batch)
        if kernels().tidegate_step(self._handle, byref(given.struct), byref(asked)):
            raise MemoryError(f"no memory for a step of {len(batch.tokens)} rows")

    def _shares(
        self, logits: torch.Tensor, places: Sequence[int], temperatures: Sequence[float]
    ) -> Shares:
        return NativeShares(self._threads, logits, places, temperatures)
