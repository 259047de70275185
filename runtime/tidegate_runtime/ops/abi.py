"""The structures and functions that Python shares with the compiled kernels.

The headers in `native/` say what the fields mean. Calls go through ctypes, which releases the
interpreter's lock.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p

import torch

from tidegate_runtime.ops.library import library
from tidegate_runtime.ops.low_rank import LowRankStruct

ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}


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
        raise RuntimeError("ops/abi.py and the headers in ops/native describe different structures")
    return loaded


def address(tensor: torch.Tensor | None) -> int | None:
    """Where a tensor's memory begins; None for no tensor."""
    return None if tensor is None else tensor.data_ptr()
