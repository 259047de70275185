"""The compiled kernels as Python objects: threads, linears, and a whole decoder step.

Calls go through ctypes, which releases the interpreter's lock, over the memory of torch tensors;
each object keeps the tensors alive that its structures point to. The headers in `native/` say what
the fields of the structures mean.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int32, c_int64, c_void_p

import numpy as np
import torch

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.ops.batch import BLOCK_TOKENS, StepBatch, StepLogits
from tidegate_runtime.ops.library import library
from tidegate_runtime.ops.low_rank import LowRankStruct, adapter_tables
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.shares import CHUNK, Floats, Places, Shares

KV_TYPES = {"fp32": 0, "bf16": 1, "int8": 2, "fp8": 3}
KV_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.uint8,
}
ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}
SCALED = frozenset({"int8", "fp8"})


class LinearStruct(Structure):
    _fields_ = [
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("minimums", c_void_p),
        ("bias", c_void_p),
        ("out", c_int32),
        ("in_", c_int32),
        ("bits", c_int32),
    ]


class CacheStruct(Structure):
    _fields_ = [("keys", c_void_p), ("values", c_void_p), ("scales", c_void_p)]


class LayerStruct(Structure):
    _fields_ = [
        *((name, LinearStruct) for name in ("query", "key", "value", "output")),
        *((name, LinearStruct) for name in ("gate", "up", "down")),
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm")),
        *((name, c_void_p) for name in ("attention_out_norm", "mlp_out_norm")),
        *((name, c_void_p) for name in ("query_norm", "key_norm", "rope")),
        ("cache", CacheStruct),
        ("window", c_int32),
    ]


class ModelStruct(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("hidden", "intermediate", "layers", "vocabulary")),
        *((name, c_int32) for name in ("heads", "kv_heads", "head_dim", "rotary_dim")),
        *((name, c_int32) for name in ("kv_type", "activation")),
        *((name, c_float) for name in ("epsilon", "attention_scale", "embedding_scale")),
        *((name, c_float) for name in ("attention_softcap", "logit_softcap")),
        *((name, c_void_p) for name in ("embedding", "final_norm")),
        ("head", LinearStruct),
        ("layer", POINTER(LayerStruct)),
    ]


class BatchStruct(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("rows", "sequences", "blocks", "wanted")),
        *((name, c_void_p) for name in ("tokens", "positions", "starts", "tables", "wanted_rows")),
        ("adapters", c_void_p),
    ]


class HeadsStruct(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("heads", "kv_heads", "head_dim", "window")),
        *((name, c_float) for name in ("scale", "softcap")),
        ("kv", c_int32),
    ]


class RowsStruct(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("query", "key", "value", "out")),
        *((name, c_int32) for name in ("query_stride", "key_stride", "value_stride", "out_stride")),
    ]


class SoftmaxStruct(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("logits", "rows", "heats", "most", "sums", "highest")),
        ("stride", c_int64),
        ("count", c_int32),
        ("size", c_int32),
    ]


class WantedStruct(Structure):
    _fields_ = [
        ("layers", c_int32),
        *((name, c_void_p) for name in ("hidden", "logits", "best", "finite")),
    ]


_STRUCTS = (
    *(LinearStruct, LayerStruct, ModelStruct, BatchStruct, HeadsStruct, RowsStruct),
    *(SoftmaxStruct, LowRankStruct, WantedStruct),
)


@functools.cache
def kernels() -> ctypes.CDLL:
    """The loaded library. Raises CompilerMissing when it cannot be built here."""
    loaded = ctypes.CDLL(str(library()))
    loaded.tidegate_pool.restype = c_void_p
    loaded.tidegate_pool.argtypes = [c_int]
    loaded.tidegate_pool_free.argtypes = [c_void_p]
    loaded.tidegate_decoder.restype = c_void_p
    loaded.tidegate_decoder.argtypes = [c_void_p, POINTER(ModelStruct)]
    loaded.tidegate_decoder_free.argtypes = [c_void_p]
    loaded.tidegate_step.argtypes = [c_void_p, POINTER(BatchStruct), POINTER(WantedStruct)]
    loaded.tidegate_attention.argtypes = [
        c_void_p,
        POINTER(HeadsStruct),
        POINTER(CacheStruct),
        POINTER(BatchStruct),
        POINTER(RowsStruct),
    ]
    loaded.tidegate_linear.argtypes = [c_void_p, POINTER(LinearStruct), c_void_p, c_int, c_void_p]
    loaded.tidegate_shares.argtypes = [c_void_p, POINTER(SoftmaxStruct)]
    loaded.tidegate_shares_inside.argtypes = [
        POINTER(SoftmaxStruct),
        *(c_void_p, c_void_p, c_int, c_void_p),
    ]
    sizes = (c_int * len(_STRUCTS))()
    loaded.tidegate_sizes(sizes)
    if list(sizes) != [ctypes.sizeof(struct) for struct in _STRUCTS]:
        raise RuntimeError(
            "ops/native.py and the headers in ops/native describe different structures"
        )
    return loaded


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


def address(tensor: torch.Tensor | None) -> int | None:
    """Where a tensor's memory begins; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()
