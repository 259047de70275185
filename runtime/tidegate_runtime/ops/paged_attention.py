"""Attention over a paged key/value cache, called by transformers through its attention interface.

A step's tokens come as one row, `[1, heads, tokens, head_dim]`, first the decoding sequences with
one token each, then the prefill chunks. `PagedBatch` says where each token's key and value go, and
which slots each query may see. It travels as a keyword argument through the model's forward, so
there is no global state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention

ATTENTION_NAME = "tidegate_paged"


@dataclass(frozen=True)
class PrefillChunk:
    """Rows `start`..`stop` of the batch are consecutive tokens of one sequence.

    `slots` `[context]` are the slots of the sequence's tokens up to the chunk's last. `mask`
    `[rows, context]` is true where a query may look, None when the chunk begins the sequence.
    """

    start: int
    stop: int
    slots: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class PagedBatch:
    """Where a step reads and writes. A slot is a token's place in a pool, block by block.

    `keys` and `values` hold one pool `[slots, kv_heads, head_dim]` per layer. `write_slots`
    `[tokens]`. `decode_slots` `[decodes, context]` is padded with the null slot, which always
    holds zeros, so what another sequence left behind is never read; `decode_mask`
    `[decodes, 1, 1, context]` is false there.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    write_slots: torch.Tensor
    decode_slots: torch.Tensor
    decode_mask: torch.Tensor
    prefills: tuple[PrefillChunk, ...]


def paged_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    paged: PagedBatch,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Write the new keys and values, then attend. Returns `[1, tokens, heads, value_dim]`.

    `ignored` was judged when the model was loaded (see `ops.probe`).
    """
    del attention_mask, ignored
    keys, values = paged.keys[module.layer_idx], paged.values[module.layer_idx]
    keys.index_copy_(0, paged.write_slots, key[0].transpose(0, 1))
    values.index_copy_(0, paged.write_slots, value[0].transpose(0, 1))
    parts = []
    decodes = paged.decode_slots.shape[0]
    if decodes:
        parts.append(_decode(query[0, :, :decodes], keys, values, paged, scaling))
    parts.extend(
        _prefill(query[:, :, chunk.start : chunk.stop], keys, values, chunk, scaling)
        for chunk in paged.prefills
    )
    return torch.cat(parts, dim=0).unsqueeze(0), None


def _decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    paged: PagedBatch,
    scaling: float | None,
) -> torch.Tensor:
    """One query per sequence: `[heads, decodes, dim]` → `[decodes, heads, value_dim]`.

    The query heads that share a key head become the rows of one attention problem, so keys and
    values are never repeated.
    """
    decodes, context = paged.decode_slots.shape
    heads, kv_heads = query.shape[0], keys.shape[1]
    grouped = query.transpose(0, 1).reshape(decodes, kv_heads, heads // kv_heads, -1)
    flat = paged.decode_slots.flatten()
    seen_keys = keys.index_select(0, flat).view(decodes, context, kv_heads, -1)
    seen_values = values.index_select(0, flat).view(decodes, context, kv_heads, -1)
    attended = scaled_dot_product_attention(
        grouped,
        seen_keys.transpose(1, 2),
        seen_values.transpose(1, 2),
        attn_mask=paged.decode_mask,
        scale=scaling,
    )
    return attended.reshape(decodes, heads, -1)


def _prefill(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    chunk: PrefillChunk,
    scaling: float | None,
) -> torch.Tensor:
    """Consecutive queries of one sequence: `[1, heads, rows, dim]` → `[rows, heads, value_dim]`."""
    seen_keys = keys.index_select(0, chunk.slots).transpose(0, 1).unsqueeze(0)
    seen_values = values.index_select(0, chunk.slots).transpose(0, 1).unsqueeze(0)
    attended = scaled_dot_product_attention(
        query,
        seen_keys,
        seen_values,
        attn_mask=chunk.mask,
        is_causal=chunk.mask is None,
        scale=scaling,
        enable_gqa=True,
    )
    return attended[0].transpose(0, 1)


def register() -> None:
    """Make the implementation known to transformers under `ATTENTION_NAME`.

    No mask function is registered for the name on purpose: transformers then builds no mask at
    all, which is right, because ours is in `PagedBatch`.
    """
    transformers.AttentionInterface.register(ATTENTION_NAME, paged_attention)
