"""The Triton kernels compute what torch computes, each row as if it were alone.

They run under Triton's interpreter (`tests/conftest.py` asks for it), so this says nothing about
speed, nor about how a GPU orders the sums within one product. `test_triton_compiles.py` says that
they compile for one.
"""

from __future__ import annotations

import math

import pytest
import torch
from tests.unit.runtime.tiny_decoders import ragged

from tidegate_runtime.ops.batch import StepBatch
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.paged_attention import Scoring, TorchPool
from tidegate_runtime.ops.quantized import pack, quantize
from tidegate_runtime.ops.triton.cache import DeviceBatch, Tiling, TritonCache, TritonPool
from tidegate_runtime.ops.triton.linear import FEW_ROWS, TritonLinear

CPU = torch.device("cpu")
KV = ["fp32", "bf16", "int8", "fp8"]
SMALL = Tiling(rows=16, tokens=16, split_tokens=32)
BLOCKS = 12


def random(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_pool(kv_heads: int, dims: tuple[int, int], kv: str, left: float = math.nan) -> TritonPool:
    """A pool in whose slots another has left something."""
    pool = TritonPool(BLOCKS, kv_heads, dims, kv, CPU)
    for tensor in (*pool.states, *pool.scales):
        tensor.fill_(left if tensor.dtype != torch.int8 else 77)
    return pool


def attend(
    pool: TritonPool,
    batch: StepBatch,
    states: tuple[torch.Tensor, ...],
    tiling: Tiling = SMALL,
    scoring: Scoring = Scoring(0.2),
) -> torch.Tensor:
    query, key, value = states
    moved = DeviceBatch(batch, tiling.tile_rows(query.shape[1] // key.shape[1]), CPU)
    return TritonCache([pool], moved, tiling).attend(0, query, key, value, scoring)


def as_kept(kv: str, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values as they come back from a pool."""
    pool = TorchPool(len(key), key.shape[1], (key.shape[2], value.shape[2]), kv)
    pool.write(torch.arange(len(key)), key, value)
    return pool.read(torch.arange(len(key)))


def plain(kv: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention over one whole sequence, as torch does it."""
    kept = as_kept(kv, key, value)
    states = (state.transpose(0, 1).unsqueeze(0) for state in (query, *kept))
    found = torch.nn.functional.scaled_dot_product_attention(
        *states, is_causal=True, scale=0.2, enable_gqa=True
    )
    return found[0].transpose(0, 1)


@pytest.mark.parametrize(
    ("kv", "heads", "kv_heads", "dims"),
    [
        *((kv, 3, 1, (64, 64)) for kv in KV),
        *((kv, 4, 2, (128, 128)) for kv in ("bf16", "int8")),
        ("fp32", 2, 2, (64, 64)),
        ("fp8", 3, 1, (48, 16)),
    ],
)
def test_attention_is_that_of_torch(
    kv: str, heads: int, kv_heads: int, dims: tuple[int, int]
) -> None:
    lengths = {"long": 36, "short": 5, "late": 18}
    states = {
        name: (
            random(length, heads, dims[0], seed=length),
            random(length, kv_heads, dims[0], seed=length + 1),
            random(length, kv_heads, dims[1], seed=length + 2),
        )
        for name, length in lengths.items()
    }
    tables = {"long": [7, 2, 9], "short": [4], "late": [11, 1]}
    pool = a_pool(kv_heads, dims, kv)
    # A long chunk beside a short one; then one decodes, one has guesses, and a third begins.
    found: dict[str, list[torch.Tensor]] = {name: [] for name in lengths}
    for step in (
        [("long", 0, 35), ("short", 0, 2)],
        [("long", 35, 36), ("short", 2, 5), ("late", 0, 18)],
    ):
        batch = ragged(*(([0] * (end - first), first, tables[name]) for name, first, end in step))
        given = tuple(
            torch.cat([states[name][part][first:end] for name, first, end in step])
            for part in range(3)
        )
        rows = attend(pool, batch, given).split([end - first for _, first, end in step])
        for (name, _, _), part in zip(step, rows, strict=True):
            found[name].append(part)
    for name, parts in found.items():
        assert torch.allclose(torch.cat(parts), plain(kv, *states[name]), atol=1e-5)


def test_a_window_hides_what_lies_before_it_and_scores_are_capped() -> None:
    query, key, value = (random(70, heads, 16, seed=heads) for heads in (2, 1, 1))
    scoring = Scoring(0.2, window=9, softcap=0.5)
    pool, found = a_pool(1, (16, 16), "fp32"), []
    # The window of the last rows begins past the first split of the context.
    for first, last in ((0, 66), (66, 70)):
        states = tuple(state[first:last] for state in (query, key, value))
        batch = ragged(([0] * (last - first), first, [3, 1, 9, 4, 2]))
        found.append(attend(pool, batch, states, scoring=scoring))
    scores = torch.einsum("qhd,kgd->hqk", query, key) * 0.2
    places = torch.arange(70)
    back = places.unsqueeze(1) - places
    seen = (back >= 0) & (back < 9)
    shares = ((scores / 0.5).tanh() * 0.5).masked_fill(~seen, -math.inf).softmax(-1)
    wanted = torch.einsum("hqk,kgd->qhd", shares, value)
    assert torch.allclose(torch.cat(found), wanted, atol=1e-5)


@pytest.mark.parametrize("kv", ["fp32", "int8"])
def test_attention_does_not_depend_on_company_or_chunks(kv: str) -> None:
    query, key, value = (random(36, heads, 32, seed=heads) for heads in (3, 1, 1))

    def run(cuts: list[int], blocks: list[int], beside: int, room: int = 1 << 24) -> torch.Tensor:
        pool, found = a_pool(1, (32, 32), kv), []
        for first, last in zip([0, *cuts], [*cuts, 36], strict=True):
            company = ([0] * beside, 0, [10])
            parts = [([0] * (last - first), first, blocks)]
            # The company comes first, so that the rows lie elsewhere in the batch.
            parts = [company, *parts] if beside else parts
            given = tuple(
                torch.cat((random(beside, state.shape[1], 32, seed=first + 5), state[first:last]))
                for state in (query, key, value)
            )
            tiling = Tiling(SMALL.rows, SMALL.tokens, SMALL.split_tokens, room)
            found.append(attend(pool, ragged(*parts), given, tiling)[beside:])
        return torch.cat(found)

    whole = run([], [1, 2, 3], beside=0)
    assert torch.equal(run([], [5, 3, 8], beside=0, room=1), whole)
    assert torch.equal(run([1, 17, 35], [9, 2, 1], beside=5, room=3 * 2 * 32 * 8), whole)


@pytest.mark.parametrize("kv", KV)
def test_what_another_left_in_a_block_is_never_seen(kv: str) -> None:
    states = tuple(random(18, heads, 32, seed=heads) for heads in (2, 1, 1))
    batch = ragged(([0] * 18, 0, [3, 1]))
    fresh, used = a_pool(1, (32, 32), kv, 0.0), a_pool(1, (32, 32), kv, math.nan)
    assert torch.equal(attend(fresh, batch, states), attend(used, batch, states))


@pytest.mark.parametrize("kv", KV)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_sequence_without_numbers_stays_so_and_spoils_no_neighbour(
    kv: str, broken: float
) -> None:
    query, key, value = (random(8, heads, 32, seed=heads) for heads in (1, 1, 1))
    batch = ragged(([0] * 4, 0, [3]), ([0] * 4, 0, [5]))
    wanted = attend(a_pool(1, (32, 32), kv), batch, (query, key, value))
    value = value.clone()
    value[2, :, 7] = broken
    pool = a_pool(1, (32, 32), kv)
    found = attend(pool, batch, (query, key, value))
    assert torch.equal(found[4:], wanted[4:])
    # Quantized or not, what later rows read of it is no number either.
    later = attend(pool, ragged(([0], 4, [3])), tuple(part[:1] for part in (query, key, key)))
    assert not torch.isfinite(later).all()


def test_queries_of_16_bits_give_what_they_give_in_float32_but_for_rounding() -> None:
    halves = tuple(random(18, heads, 64, seed=heads).half() for heads in (3, 1, 1))
    batch = ragged(([0] * 18, 0, [3, 1]))
    found = attend(a_pool(1, (64, 64), "int8"), batch, halves)
    wanted = attend(a_pool(1, (64, 64), "int8"), batch, tuple(part.float() for part in halves))
    assert found.dtype == torch.float16
    assert 0 < (found - wanted).abs().max() < 1e-2


def test_states_may_lie_in_memory_in_any_order() -> None:
    states = tuple(random(5, heads, 16, seed=heads) for heads in (4, 2, 2))
    batch = ragged(([0] * 5, 0, [3]))
    wanted = attend(a_pool(2, (16, 16), "fp32"), batch, states)
    for order in ((1, 0, 2), (2, 1, 0)):
        turned = tuple(part.permute(order).contiguous().permute(order) for part in states)
        assert torch.equal(attend(a_pool(2, (16, 16), "fp32"), batch, turned), wanted)


def test_only_the_slots_of_the_batch_are_written() -> None:
    pool = a_pool(2, (32, 32), "fp32", 5.0)
    states = tuple(random(3, heads, 32, seed=heads) for heads in (2, 2, 2))
    attend(pool, ragged(([0] * 2, 0, [3]), ([0], 0, [4])), states)
    for kept, state in zip(pool.states, states[1:], strict=True):
        assert torch.equal(kept[3, :, :2], state[:2].transpose(0, 1))
        assert torch.equal(kept[4, :, 0], state[2])
        kept[3, :, :2] = kept[4, :, 0] = 5.0
        assert (kept == 5.0).all()


def a_linear(bits: int, out: int, inputs: int, *, bias: bool) -> PackedLinear:
    weight = random(out, inputs) * 0.1 + 0.05
    own = random(out, seed=4) if bias else None
    return PackedLinear(pack(quantize(weight, bits)), own, out, inputs, bits)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("out", "inputs", "bias"), [(50, 96, True), (64, 32, False)])
def test_a_product_is_that_of_the_values(bits: int, out: int, inputs: int, bias: bool) -> None:
    packed = a_linear(bits, out, inputs, bias=bias)
    linear = TritonLinear(packed, CPU, torch.float32)
    for rows in (1, 17, FEW_ROWS + 1):
        given = random(rows, inputs)
        wanted = torch.nn.functional.linear(given, packed.values(), packed.bias)
        assert torch.allclose(linear(given.unsqueeze(0))[0], wanted, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_values_and_rows_of_a_repacked_weight_are_its_own(bits: int) -> None:
    packed = a_linear(bits, 50, 96, bias=False)
    linear = TritonLinear(packed, CPU, torch.float32)
    assert torch.equal(linear.values(), packed.values())
    some = torch.tensor([49, 0, 17])
    assert torch.equal(linear.rows(some), packed.values()[some])


@pytest.mark.parametrize("bits", [8, 4])
def test_among_few_rows_a_product_does_not_depend_on_its_company(bits: int) -> None:
    linear = TritonLinear(a_linear(bits, 50, 96, bias=True), CPU, torch.float32)
    given = random(FEW_ROWS, 96)
    given[3] = math.nan
    together = linear(given)
    for row in (0, 4, 20, FEW_ROWS - 1):
        assert torch.equal(linear(given[row : row + 1])[0], together[row])
    assert together[3].isnan().all()


def test_a_weight_of_16_bits_has_no_codes() -> None:
    packed = PackedLinear({"codes": torch.zeros(1, 16, 16, 2).bfloat16()}, None, 16, 32, 16)
    with pytest.raises(ValueError, match="16 bits"):
        TritonLinear(packed, CPU, torch.float32)
