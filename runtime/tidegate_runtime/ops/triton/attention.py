"""Paged attention as Triton kernels: write, attend within a split of the context, combine.

The heads that share a kv head attend together, a tile of `TILE_ROWS` (token, head) pairs. The
context is cut into splits of `SPLIT_TOKENS` whose partial softmaxes are combined in order
(flash-decoding, Dao et al. 2023), so that few long sequences still fill a device. Tile and split
never depend on the batch, so neither does a row's order of sums.

A pool is `[blocks, kv_heads, 16, dim]`, its scales float32 `[blocks, kv_heads, 16]`.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE_ROWS = 64
"""The fewest rows that Hopper's matrix instruction takes."""
TILE_TOKENS = 32
"""The most with which the compiler keeps 128 wide bf16 heads in registers."""
SPLIT_TOKENS = 512


@triton.jit(do_not_specialize_on_alignment=["slots"])
def write_kernel(
    states: tl.tensor,
    pool: tl.tensor,
    scales: tl.tensor,
    slots: tl.tensor,
    row_stride: tl.tensor,
    head_stride: tl.tensor,
    kv_heads: tl.tensor,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    block_tokens: tl.constexpr,
    largest_code: tl.constexpr,
) -> None:
    """Put one key or value, `states` `[rows, kv_heads, dim]`, into its slot.

    `largest_code` is that of a quantized pool, 127 for int8 or 448 for fp8, and 0 for others.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, padded_dim)
    inside = column < dim
    state = tl.load(states + row * row_stride + head * head_stride + column, inside, 0.0)
    slot = tl.load(slots + row).to(tl.int64)
    place = ((slot // block_tokens) * kv_heads + head) * block_tokens + slot % block_tokens
    if largest_code == 0:
        stored = state
    else:
        state = state.to(tl.float32)
        # NaN where a component is no number; a maximum would pass over it.
        broken = tl.sum(state * 0.0, 0)
        largest = tl.max(tl.abs(state), 0)
        scale = tl.where(largest > 0, largest / largest_code, 1.0)
        code = tl.where(broken == 0, state / scale, 0.0)
        if largest_code == 127:
            stored = tl.floor(code + 0.5)
        else:
            # Rounded to the three bits of e4m3 here, the cast below is exact on any device.
            bits = code.to(tl.int32, bitcast=True)
            bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
            stored = bits.to(tl.float32, bitcast=True)
        tl.store(scales + place, scale + broken)
    tl.store(pool + place * dim + column, stored.to(pool.dtype.element_ty), inside)


@triton.jit(
    do_not_specialize=["first_row", "table_width"],
    do_not_specialize_on_alignment=["positions", "starts", "tables", "tiles"],
)
def attend_kernel(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_scales: tl.tensor,
    value_scales: tl.tensor,
    sums: tl.tensor,
    maxima: tl.tensor,
    weights: tl.tensor,
    positions: tl.tensor,
    starts: tl.tensor,
    tables: tl.tensor,
    tiles: tl.tensor,
    first_row: tl.tensor,
    row_stride: tl.tensor,
    head_stride: tl.tensor,
    table_width: tl.tensor,
    scale_log2: tl.tensor,
    cap_log2: tl.tensor,
    group: tl.constexpr,
    padded_group: tl.constexpr,
    key_dim: tl.constexpr,
    padded_key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    padded_value_dim: tl.constexpr,
    scaled: tl.constexpr,
    window: tl.constexpr,
    capped: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_tokens: tl.constexpr,
    split_tokens: tl.constexpr,
    block_tokens: tl.constexpr,
) -> None:
    """One tile of rows against one split of their context, for one kv head.

    `tiles` `[tiles, 2]` holds a tile's sequence and first row. The results, for each row from
    `first_row` on, head and split, are `sums` `[…, value_dim]` of values, each value weighted with
    2^(score - maximum); the `maxima`; and the sums of the `weights`. `window` 0 is none; `cap_log2`
    is the soft cap of the scores, where they are `capped`.
    """
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads, splits = tl.num_programs(1), tl.num_programs(2)
    sequence, first = tl.load(tiles + tile * 2), tl.load(tiles + tile * 2 + 1)
    end = tl.minimum(first + tile_rows // padded_group, tl.load(starts + sequence + 1))
    begin = split * split_tokens
    limit = tl.minimum(begin + split_tokens, tl.load(positions + end - 1) + 1)
    if begin >= limit:
        return

    lane = tl.arange(0, tile_rows)
    row, member = first + lane // padded_group, lane % padded_group
    used = (row < end) & (member < group)
    own_head = head * group + member
    position = tl.load(positions + row, used, 0)
    key_column, value_column = tl.arange(0, padded_key_dim), tl.arange(0, padded_value_dim)
    asked = tl.load(
        query + (row * row_stride + own_head * head_stride)[:, None] + key_column[None, :],
        used[:, None] & (key_column < key_dim)[None, :],
        0.0,
    )
    maximum = tl.full([tile_rows], float("-inf"), tl.float32)
    weight = tl.zeros([tile_rows], tl.float32)
    total = tl.zeros([tile_rows, padded_value_dim], tl.float32)
    start = begin
    if window > 0:
        # Whole tiles before the first row's window are nobody's.
        oldest = tl.maximum(tl.load(positions + first) - window + 1, begin)
        start = begin + (oldest - begin) // tile_tokens * tile_tokens
    for here in range(start, limit, tile_tokens):
        token = here + tl.arange(0, tile_tokens)
        known = token < limit
        block = tl.load(tables + sequence * table_width + token // block_tokens, known, 0)
        place = (block.to(tl.int64) * kv_heads + head) * block_tokens + token % block_tokens
        key = tl.load(
            keys + (place * key_dim)[None, :] + key_column[:, None],
            known[None, :] & (key_column < key_dim)[:, None],
            0.0,
        )
        score = tl.dot(asked, key.to(asked.dtype), input_precision="tf32x3") * scale_log2
        if scaled:
            score *= tl.load(key_scales + place, known, 1.0)[None, :]
        if capped:
            # tanh(x) = 2 / (1 + e^-2x) - 1
            power = tl.exp2(score / cap_log2 * (-2 * 1.4426950408889634))
            score = (2 / (1 + power) - 1) * cap_log2
        seen = token[None, :] <= position[:, None]
        if window > 0:
            seen = seen & (token[None, :] > position[:, None] - window)
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(maximum, tl.max(score, 1))
        # A row before all of these tokens has seen nothing; it must not subtract infinities.
        origin = tl.where(higher == float("-inf"), 0.0, higher)
        share = tl.exp2(score - origin[:, None])
        shrink = tl.exp2(maximum - origin)
        weight = weight * shrink + tl.sum(share, 1)
        value = tl.load(
            values + (place * value_dim)[:, None] + value_column[None, :],
            known[:, None] & (value_column < value_dim)[None, :],
            0.0,
        )
        if scaled:
            share *= tl.load(value_scales + place, known, 0.0)[None, :]
        added = tl.dot(share.to(asked.dtype), value.to(asked.dtype), input_precision="tf32x3")
        total = total * shrink[:, None] + added
        maximum = higher
    result = (((row - first_row) * kv_heads * group + own_head) * splits + split).to(tl.int64)
    tl.store(maxima + result, maximum, used)
    tl.store(weights + result, weight, used)
    tl.store(
        sums + (result * value_dim)[:, None] + value_column[None, :],
        total,
        used[:, None] & (value_column < value_dim)[None, :],
    )


@triton.jit(do_not_specialize=["first_row", "splits"], do_not_specialize_on_alignment=["positions"])
def combine_kernel(
    sums: tl.tensor,
    maxima: tl.tensor,
    weights: tl.tensor,
    positions: tl.tensor,
    out: tl.tensor,
    first_row: tl.tensor,
    splits: tl.tensor,
    value_dim: tl.constexpr,
    padded_value_dim: tl.constexpr,
    split_tokens: tl.constexpr,
) -> None:
    """Combine a row and head's splits, in order, into `out` `[rows, heads, value_dim]`."""
    row, head = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, padded_value_dim)
    inside = column < value_dim
    start = (row * tl.num_programs(1) + head).to(tl.int64) * splits
    last = tl.load(positions + first_row + row) // split_tokens
    maximum = tl.load(maxima + start)
    weight = tl.load(weights + start)
    total = tl.load(sums + start * value_dim + column, inside, 0.0)
    for split in range(1, last + 1):
        other = tl.load(maxima + start + split)
        higher = tl.maximum(maximum, other)
        # A split before the row's window has seen nothing; see above.
        origin = tl.where(higher == float("-inf"), 0.0, higher)
        shrink, grow = tl.exp2(maximum - origin), tl.exp2(other - origin)
        weight = weight * shrink + tl.load(weights + start + split) * grow
        part = tl.load(sums + (start + split) * value_dim + column, inside, 0.0)
        total = total * shrink + part * grow
        maximum = higher
    place = ((first_row + row) * tl.num_programs(1) + head).to(tl.int64) * value_dim
    tl.store(out + place + column, (total / weight).to(out.dtype.element_ty), inside)
