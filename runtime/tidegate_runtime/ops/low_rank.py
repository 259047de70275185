"""Low-rank updates of linears (LoRA, Hu et al. 2021), and how they lie in memory for the kernels.

An update adds `up @ (down @ x)` to what a linear makes of `x`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.ops.quantized import PANEL

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linears of a layer that the kernels can update, in their order."""
HEAD = "lm_head"
"""The last layer, as models name it; its update comes after those of all layers."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """The update of one linear: `down` `[rank, in]`, `up` `[out, rank]`, both float32.

    The scale of the adapter is in `up`.
    """

    down: torch.Tensor
    up: torch.Tensor


class LowRankStruct(ctypes.Structure):
    _fields_ = [("down", ctypes.c_void_p), ("up", ctypes.c_void_p), ("rank", ctypes.c_int32)]


@dataclass(frozen=True, eq=False)
class KernelAdapter(Adapter):
    """An adapter in bf16 as kernels read it: `table` `[layers · targets + 1]`, and its memory."""

    table: ctypes.Array[LowRankStruct]
    tensors: tuple[torch.Tensor, ...]


def pack_adapter(
    adapter_id: str, layers: Sequence[Mapping[str, LowRank]], head: LowRank | None = None
) -> KernelAdapter:
    """An adapter for the kernels from its updates, layer by layer, by the names in `TARGETS`, and
    that of the last layer.
    """
    places = [updates.get(name) for updates in layers for name in TARGETS] + [head]
    table = (LowRankStruct * len(places))()
    tensors: list[torch.Tensor] = []
    for place, update in enumerate(places):
        if update is not None:
            down, up = _panels(update.down), _panels(update.up)
            tensors += (down, up)
            table[place] = LowRankStruct(down.data_ptr(), up.data_ptr(), len(update.down))
    return KernelAdapter(
        adapter_id, sum(tensor.nbytes for tensor in tensors), table, tuple(tensors)
    )


def adapter_tables(adapters: Sequence[Adapter | None]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The address of every sequence's table, 0 for a sequence without an adapter."""
    return np.array(
        [ctypes.addressof(a.table) if isinstance(a, KernelAdapter) else 0 for a in adapters],
        dtype=np.intp,
    )


def _panels(weight: torch.Tensor) -> torch.Tensor:
    """`[out, in]` → bf16 `[panels, in, 16]`, padded with zeros."""
    padded = torch.nn.functional.pad(weight, (0, 0, 0, -len(weight) % PANEL))
    rows = padded.reshape(-1, PANEL, weight.shape[1]).transpose(1, 2)
    return rows.to(torch.bfloat16).contiguous()
