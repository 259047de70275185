"""Attention over a paged key/value cache for models from transformers.

A step's tokens come as one row, `[1, heads, tokens, head_dim]`. What a layer needs beside them
travels as the keyword argument `paged` through the model's forward, so there is no global state:
either pools on the compiled kernels (`NativeCache`), or, where these are not to be had, pools on
torch's own operators (`TorchCache`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import transformers

from tidegate_runtime.ops import abi, native
from tidegate_runtime.ops.batch import BLOCK_TOKENS, StepBatch
from tidegate_runtime.ops.kv_pool import KV_DTYPES, KV_TYPES, SCALED, KvPool

ATTENTION_NAME = "tidegate_paged"
SPAN_TOKENS = 64
"""How many tokens' weights are rounded together over keys and values in int8."""


class Scoring(NamedTuple):
    """How a layer scores keys: times `scale`; then, with a `softcap` c, c * tanh(score / c) (Gemma
    2, 2024); among the last `window` tokens only, its own included. 0 is no cap, or no window.
    """

    scale: float
    window: int = 0
    softcap: float = 0.0


class Cache(Protocol):
    """The pools of all layers, ready for one step."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Write `[rows, kv_heads, dim]`, then attend: `[rows, heads, dim]` → the same."""


class NativeCache:
    """Pools on the compiled kernels."""

    def __init__(
        self, threads: native.Threads, pools: list[KvPool], batch: StepBatch, kv: str
    ) -> None:
        self._threads = threads
        self._pools = pools
        self._batch = native.Batch(batch)
        self._kv = KV_TYPES[kv]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        heads = abi.HeadsStruct(
            *(query.shape[1], key.shape[1], key.shape[2]),
            *(scoring.window, scoring.scale, scoring.softcap, self._kv),
        )
        pool = self._pools[layer]
        return native.attention(self._threads, heads, pool, self._batch, query, key, value)


class TorchPool:
    """The keys and values of one layer: `[slots, kv_heads, dim]`, a slot for each token."""

    def __init__(self, slots: int, kv_heads: int, dims: tuple[int, int], kv: str) -> None:
        self.integer = kv == "int8"
        self._scaled = kv in SCALED
        dtype = torch.float8_e4m3fn if kv == "fp8" else KV_DTYPES[kv]
        self._most = 127.0 if kv == "int8" else 448.0
        self._pools = [torch.zeros(slots, kv_heads, dim, dtype=dtype) for dim in dims]
        self._scales = [torch.ones(slots, kv_heads, 1) for _ in dims] if self._scaled else []

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Keys, values and, in 8 bits, their scales: `[blocks, …]` each, over the same memory."""
        return [
            part.view(-1, BLOCK_TOKENS, *part.shape[1:]) for part in (*self._pools, *self._scales)
        ]

    def write(self, slots: torch.Tensor, *states: torch.Tensor) -> None:
        """Put keys and values `[rows, kv_heads, dim]` into slots `[rows]`."""
        for index, state in enumerate(states):
            pool = self._pools[index]
            if self._scaled:
                largest = state.abs().amax(-1, keepdim=True)
                scale = torch.where(largest > 0, largest / self._most, 1.0)
                self._scales[index][slots] = scale
                state = state / scale
                state = state.round() if pool.dtype is torch.int8 else state
            pool[slots] = state.to(pool.dtype)

    def read(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of slots `[…]` as float32 `[…, kv_heads, dim]`."""
        found = [pool[slots].float() for pool in self._pools]
        if self._scaled:
            found = [state * scale[slots] for state, scale in zip(found, self._scales, strict=True)]
        return found[0], found[1]

    def value_scales(self, slots: torch.Tensor) -> torch.Tensor:
        """What the codes of values in slots `[…]` are multiplied with, `[…, kv_heads]`."""
        return self._scales[1][slots].squeeze(-1)


@dataclass(frozen=True)
class _Group:
    """Sequences with equally many rows: these rows, the slots of their contexts, and how far back
    each of them lies.

    `rows` `[sequences, count]`, `slots` `[sequences, context]`, `back`
    `[sequences, 1, 1, count, context]`, less than 0 for what is to come.
    """

    rows: torch.Tensor
    slots: torch.Tensor
    back: torch.Tensor

    def seen(self, window: int) -> torch.Tensor:
        """What each row sees, of the last `window` tokens if that is not 0."""
        seen = self.back >= 0
        return seen & (self.back < window) if window else seen


class TorchCache:
    """Pools on torch's operators: sequences with equally many rows attend together."""

    def __init__(self, pools: list[TorchPool], batch: StepBatch) -> None:
        self._pools = pools
        starts = torch.from_numpy(batch.starts).long()
        tables = torch.from_numpy(batch.tables).long()
        positions = torch.from_numpy(batch.positions).long()
        counts = starts[1:] - starts[:-1]
        slots = (tables.unsqueeze(2) * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS)).flatten(1)
        owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
        self._written = slots[owner, positions]
        self._groups = []
        for count in sorted(set(counts.tolist())):
            members = (counts == count).nonzero().flatten()
            rows = starts[members].unsqueeze(1) + torch.arange(count)
            places = positions[rows]
            context = int(places.max()) + 1
            back = (places.unsqueeze(-1) - torch.arange(context)).unsqueeze(1).unsqueeze(1)
            self._groups.append(_Group(rows, slots[members, :context], back))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        pool = self._pools[layer]
        pool.write(self._written, key, value)
        out = query.new_empty(*query.shape[:2], value.shape[2])
        shared = query.shape[1] // key.shape[1]
        for group in self._groups:
            keys, values = (state.transpose(1, 2).unsqueeze(2) for state in pool.read(group.slots))
            # [sequences, rows, heads, dim] → [sequences, kv_heads, shared, rows, dim]
            asked = query[group.rows].reshape(*group.rows.shape, -1, shared, query.shape[2])
            asked = asked.permute(0, 2, 3, 1, 4)
            if pool.integer:
                asked = _rounded(asked, 127)
            scores = (asked @ keys.transpose(-1, -2)) * scoring.scale
            if scoring.softcap:
                scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
            seen = group.seen(scoring.window)
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            if pool.integer:
                scales = pool.value_scales(group.slots).transpose(1, 2)[:, :, None, None]
                weights = _rounded_in_spans(weights, scales.where(seen, 1.0))
            # A padded slot may hold another's values, whatever they are; none may come through.
            inside = seen.any(-2).unsqueeze(-1)
            values = values.masked_fill(~inside, 0.0)
            attended = (weights @ values).permute(0, 3, 1, 2, 4).flatten(2, 3)
            out[group.rows] = attended
        return out


def _rounded(values: torch.Tensor, most: int) -> torch.Tensor:
    """The last dimension in steps of its largest magnitude / `most`."""
    step = values.abs().amax(-1, keepdim=True) / most
    return torch.round(values / torch.where(step > 0, step, 1.0)) * step


def _rounded_in_spans(weights: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weights `[…, context]` as the kernels round them: times their values' scales, to 8 bits in
    spans of 64 tokens.
    """
    context = weights.shape[-1]
    spans = torch.nn.functional.pad(weights * scales, (0, -context % SPAN_TOKENS))
    rounded = _rounded(spans.reshape(*spans.shape[:-1], -1, SPAN_TOKENS), 255).flatten(-2)
    return rounded[..., :context] / scales


def paged_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    paged: Cache,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for every layer. Returns `[1, tokens, heads, value_dim]`.

    `ignored` was judged when the model was loaded (see `ops.probe`).
    """
    del attention_mask, ignored
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scoring = Scoring(scale, sliding_window or 0, softcap or 0.0)
    query, key, value = (state[0].transpose(0, 1) for state in (query, key, value))
    return paged.attend(module.layer_idx, query, key, value, scoring).unsqueeze(0), None


def register() -> None:
    """Make the implementation known to transformers under `ATTENTION_NAME`.

    No mask function is registered for the name on purpose: transformers then builds no mask at
    all, which is right, because a step's batch says who sees what.
    """
    transformers.AttentionInterface.register(ATTENTION_NAME, paged_attention)
