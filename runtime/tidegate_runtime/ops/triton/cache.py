"""The paged cache on a GPU: pools in its memory, one step's batch beside them, and the launches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton

from tidegate_runtime.ops.batch import BLOCK_TOKENS, Integers, StepBatch
from tidegate_runtime.ops.paged_attention import Scoring
from tidegate_runtime.ops.triton.attention import (
    SPLIT_TOKENS,
    TILE_ROWS,
    TILE_TOKENS,
    attend_kernel,
    combine_kernel,
    write_kernel,
)

KV_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
_LARGEST_CODES = {"int8": 127, "fp8": 448}
_SMALLEST_OPERAND = 16


@dataclass(frozen=True)
class Tiling:
    """How attention is cut; each number a power of two, and a split a multiple of a tile.

    A row's result depends on the first three, so they never follow the batch; tests have smaller
    ones. `workspace` bounds the partial sums that are kept at a time.
    """

    rows: int = TILE_ROWS
    tokens: int = TILE_TOKENS
    split_tokens: int = SPLIT_TOKENS
    workspace: int = 1 << 24

    def tile_rows(self, group: int) -> int:
        """How many tokens a tile has where `group` heads share a kv head."""
        return max(1, self.rows // int(triton.next_power_of_2(group)))


class TritonPool:
    """The keys and values of one layer, `[blocks, kv_heads, 16, dim]` each, on `device`."""

    def __init__(
        self, blocks: int, kv_heads: int, dims: tuple[int, int], kv: str, device: torch.device
    ) -> None:
        self.largest_code = _LARGEST_CODES.get(kv, 0)
        shape = (blocks, kv_heads, BLOCK_TOKENS)
        self.states = [torch.empty(*shape, dim, dtype=KV_DTYPES[kv], device=device) for dim in dims]
        self.scales = [torch.empty(shape if self.largest_code else 0, device=device) for _ in dims]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Keys, values and, in 8 bits, their scales: `[blocks, …]` each."""
        return [*self.states, *(self.scales if self.largest_code else ())]

    def write(self, slots: torch.Tensor, *states: torch.Tensor) -> None:
        """Put keys and values `[rows, kv_heads, dim]` into slots `[rows]`."""
        for pool, scales, state in zip(self.states, self.scales, states, strict=True):
            if not self.largest_code:
                state = state.to(pool.dtype)
            state = _dense_last(state)
            rows, kv_heads, dim = state.shape
            write_kernel[rows, kv_heads](
                state,
                pool,
                scales,
                slots,
                *state.stride()[:2],
                kv_heads,
                dim=dim,
                padded_dim=_padded(dim),
                block_tokens=BLOCK_TOKENS,
                largest_code=self.largest_code,
                num_warps=1,
                enable_fp_fusion=False,
            )


class DeviceBatch:
    """A step's batch on the device, moved there at once.

    `tokens`, `positions` and `wanted` are int64, as torch's operators want them; `places` (the
    positions again), `starts`, `tables`, `slots` `[rows]` and `tiles` `[tiles, 2]` (a tile's
    sequence and first row) are int32, for the kernels.
    """

    def __init__(self, batch: StepBatch, tile_rows: int, device: torch.device) -> None:
        self.tile_rows = tile_rows
        self.context_tokens = int(batch.positions.max()) + 1
        self.tile_starts, owners = _tiles(batch.starts, tile_rows)
        owner = np.repeat(np.arange(len(batch.tables)), np.diff(batch.starts))
        blocks = batch.tables[owner, batch.positions // BLOCK_TOKENS]
        parts = (
            batch.tokens,
            batch.positions,
            # transformers wants one row to project; a lone chunk of a long prompt has none to give.
            batch.wanted if len(batch.wanted) else np.zeros(1, dtype=np.int32),
            batch.starts,
            batch.tables,
            blocks * BLOCK_TOKENS + batch.positions % BLOCK_TOKENS,
            np.stack((owners, self.tile_starts), axis=1),
        )
        moved = _moved(parts, device)
        self.tokens, self.positions, self.wanted = (part.long() for part in moved[:3])
        self.places = moved[1]
        self.starts, self.tables, self.slots, self.tiles = moved[3:]


class TritonCache:
    """Pools on a GPU, ready for one step; see `ops.paged_attention.Cache`."""

    def __init__(self, pools: list[TritonPool], batch: DeviceBatch, tiling: Tiling) -> None:
        self._pools = pools
        self._batch = batch
        self._tiling = tiling

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Write `[rows, kv_heads, dim]`, then attend: `[rows, heads, dim]` → the same."""
        pool, batch = self._pools[layer], self._batch
        pool.write(batch.slots, key, value)
        rows, heads = query.shape[:2]
        query, value_dim = _dense_last(query), value.shape[2]
        out = query.new_empty(rows, heads, value_dim)
        splits = triton.cdiv(batch.context_tokens, self._tiling.split_tokens)
        room = self._tiling.workspace // (heads * splits * value_dim)
        together = max(1, room // batch.tile_rows)
        for first in range(0, len(batch.tiles), together):
            tiles = batch.tiles[first : first + together]
            first_row, end = (
                int(batch.tile_starts[at]) if at < len(batch.tile_starts) else rows
                for at in (first, first + together)
            )
            self._attend_rows(pool, tiles, (first_row, end), splits, query, out, scoring)
        return out

    def _attend_rows(
        self,
        pool: TritonPool,
        tiles: torch.Tensor,
        rows: tuple[int, int],
        splits: int,
        query: torch.Tensor,
        out: torch.Tensor,
        scoring: Scoring,
    ) -> None:
        """Attend the tiles of some consecutive rows."""
        batch, tiling = self._batch, self._tiling
        (heads, key_dim), value_dim = query.shape[1:], out.shape[2]
        count, kv_heads = rows[1] - rows[0], pool.states[0].shape[1]
        parts = (count, heads, splits)
        sums = torch.empty(*parts, value_dim, dtype=torch.float32, device=query.device)
        maxima, weights = (sums.new_empty(parts) for _ in range(2))
        group = heads // kv_heads
        attend_kernel[len(tiles), kv_heads, splits](
            query,
            *pool.states,
            *pool.scales,
            sums,
            maxima,
            weights,
            batch.places,
            batch.starts,
            batch.tables,
            tiles,
            rows[0],
            *query.stride()[:2],
            batch.tables.shape[1],
            scoring.scale / math.log(2),
            scoring.softcap / math.log(2),
            group=group,
            padded_group=triton.next_power_of_2(group),
            key_dim=key_dim,
            padded_key_dim=_padded(key_dim),
            value_dim=value_dim,
            padded_value_dim=_padded(value_dim),
            scaled=bool(pool.largest_code),
            window=scoring.window,
            capped=scoring.softcap > 0,
            tile_rows=batch.tile_rows * triton.next_power_of_2(group),
            tile_tokens=tiling.tokens,
            split_tokens=tiling.split_tokens,
            block_tokens=BLOCK_TOKENS,
            enable_fp_fusion=False,
        )
        combine_kernel[count, heads](
            sums,
            maxima,
            weights,
            batch.places,
            out,
            rows[0],
            splits,
            value_dim=value_dim,
            padded_value_dim=_padded(value_dim),
            split_tokens=tiling.split_tokens,
            num_warps=1,
            enable_fp_fusion=False,
        )


def _tiles(starts: Integers, tile_rows: int) -> tuple[Integers, Integers]:
    """The first row and the sequence of every tile, in the order of rows."""
    counts = -(-np.diff(starts) // tile_rows)
    owners = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    before = np.cumsum(counts) - counts
    inside = np.arange(len(owners), dtype=np.int32) - before[owners]
    return (starts[owners] + inside * tile_rows).astype(np.int32), owners


def _moved(parts: tuple[Integers, ...], device: torch.device) -> list[torch.Tensor]:
    """Arrays on the device by one transfer."""
    flat = np.concatenate([part.reshape(-1) for part in parts], dtype=np.int32)
    whole = torch.from_numpy(flat).to(device)
    found = torch.split_with_sizes(whole, [part.size for part in parts])
    return [piece.view(part.shape) for piece, part in zip(found, parts, strict=True)]


def _padded(dim: int) -> int:
    return max(_SMALLEST_OPERAND, int(triton.next_power_of_2(dim)))


def _dense_last(states: torch.Tensor) -> torch.Tensor:
    return states if states.stride(2) == 1 else states.contiguous()
