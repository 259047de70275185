"""The compiled kernels compute what torch computes, each row as if it were alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.unit.runtime.tiny_decoders import ragged

from tidegate_runtime.ops import abi, compiler, native
from tidegate_runtime.ops.kv_pool import KV_TYPES, KvPool
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.paged_attention import NativeCache, Scoring, TorchCache, TorchPool
from tidegate_runtime.ops.quantized import pack, pack_dense, quantize

KV = ["fp32", "bf16", "int8", "fp8"]
WIDEST_NAN = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32).item()
"""Rounded like a number, it would overflow into one."""


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> native.Threads:
    return native.Threads(request.param)


def random(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_linear(bits: int, out: int = 200, inputs: int = 160) -> PackedLinear:
    weight = random(out, inputs) * 0.1
    tensors = pack_dense(weight) if bits == 16 else pack(quantize(weight, bits))
    return PackedLinear(tensors, random(out, seed=4), out, inputs, bits)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8, 9, 37])
def test_a_product_is_that_of_the_rounded_values(
    threads: native.Threads, bits: int, rows: int
) -> None:
    packed, inputs = a_linear(bits), random(rows, 160)
    found = native.Linear(packed).apply(threads, inputs)
    wanted = torch.nn.functional.linear(packed.rounded(inputs), packed.values(), packed.bias)
    assert torch.allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_row_does_not_depend_on_its_company(threads: native.Threads, bits: int) -> None:
    linear, inputs = native.Linear(a_linear(bits)), random(29, 160)
    together = linear.apply(threads, inputs)
    alone = torch.cat([linear.apply(threads, row.unsqueeze(0)) for row in inputs])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("broken", [math.nan, WIDEST_NAN, math.inf, -math.inf])
def test_a_row_without_numbers_spoils_only_itself(
    threads: native.Threads, bits: int, broken: float
) -> None:
    linear, inputs = native.Linear(a_linear(bits)), random(5, 160)
    wanted = linear.apply(threads, inputs)
    inputs[2, 70] = broken
    found = linear.apply(threads, inputs)
    others = [0, 1, 3, 4]
    assert torch.equal(found[others], wanted[others])
    assert not torch.isfinite(found[2]).any()


def test_groups_of_zeros_and_of_the_smallest_numbers_are_zero(threads: native.Threads) -> None:
    inputs = torch.zeros(2, 160)
    inputs[1, :32] = 1e-38
    found = native.Linear(a_linear(8)).apply(threads, inputs)
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], random(200, seed=4))


@pytest.mark.parametrize("scoring", [Scoring(0.2), Scoring(0.2, window=70, softcap=1.5)])
@pytest.mark.parametrize("kv", KV)
def test_attention_is_that_of_torch_over_the_same_pool(
    threads: native.Threads, kv: str, scoring: Scoring
) -> None:
    tolerance = {"fp32": 1e-5, "bf16": 1e-5, "int8": 1e-2, "fp8": 8e-2}[kv]
    ours = [KvPool(20, 2, 32, kv)]
    theirs = [TorchPool(20 * 16, 2, (32, 32), kv)]
    long = [7, 2, 9, 13, 16, 0, 19, 12, 5]
    steps = [
        ragged(([0] * 135, 0, long), ([0] * 5, 0, [4])),
        # Two decode, one with a guess beside it; a third begins, its rows past one tile.
        ragged(([0], 135, long), ([0, 0], 5, [4]), ([0] * 19, 0, [1, 11])),
    ]
    for seed, batch in enumerate(steps):
        rows = len(batch.tokens)
        query, key, value = (random(rows, heads, 32, seed=seed + heads) for heads in (6, 2, 2))
        found = NativeCache(threads, ours, batch, kv).attend(0, query, key, value, scoring)
        wanted = TorchCache(theirs, batch).attend(0, query, key, value, scoring)
        assert torch.allclose(found, wanted, atol=tolerance)


def test_a_window_hides_what_lies_before_it(threads: native.Threads) -> None:
    batch = ragged(([0] * 50, 0, [0, 1, 2, 3]))
    query, key, value = (random(50, heads, 16, seed=heads) for heads in (4, 2, 3))
    value = value[:, :2].contiguous()
    heads = abi.HeadsStruct(4, 2, 16, 20, 0.25, 0.0, KV_TYPES["fp32"])
    pool = KvPool(4, 2, 16, "fp32")
    found = native.attention(threads, heads, pool, native.Batch(batch), query, key, value)
    places = torch.arange(50)
    distance = places.unsqueeze(1) - places
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        attn_mask=(distance >= 0) & (distance < 20),
        scale=0.25,
        enable_gqa=True,
    ).transpose(0, 1)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("window", [0, 70])
@pytest.mark.parametrize("kv", KV)
def test_attention_does_not_depend_on_company_or_chunks(
    threads: native.Threads, kv: str, window: int
) -> None:
    tokens = 140
    query, key, value = (random(tokens, heads, 32, seed=heads) for heads in (6, 2, 2))
    shape = abi.HeadsStruct(6, 2, 32, window, 0.2, 0.0, KV_TYPES[kv])

    def run(cuts: list[int], blocks: list[int], beside: int) -> torch.Tensor:
        pool, found = KvPool(20, 2, 32, kv), []
        for first, last in zip([0, *cuts], [*cuts, tokens], strict=True):
            parts = [([0] * (last - first), first, blocks)]
            parts += [([0], first, [19])] if beside and first < 16 else []
            batch = native.Batch(ragged(*parts))
            more = sum(len(part) for part, _, _ in parts) - (last - first)
            given = [
                torch.cat((state[first:last], random(more, state.shape[1], 32, seed=beside)))
                for state in (query, key, value)
            ]
            found.append(native.attention(threads, shape, pool, batch, *given)[: last - first])
        return torch.cat(found)

    forwards, backwards = list(range(9)), list(range(18, 9, -1))
    whole = run([], forwards, beside=0)
    assert torch.equal(run([], backwards, beside=0), whole)
    assert torch.equal(run([1, 2, 17, 30, 31, 70, 128], forwards, beside=6), whole)
    assert torch.equal(run(list(range(1, tokens)), backwards, beside=7), whole)


@pytest.mark.parametrize("kv", KV)
def test_the_newest_token_may_outweigh_all_others(threads: native.Threads, kv: str) -> None:
    query, key, value = (random(41, heads, 32, seed=heads) for heads in (6, 2, 2))
    key[39], key[40], query[40] = 15.0, 20.0, 20.0
    batch = ragged(([0] * 41, 0, [2, 0, 3]))
    cache = NativeCache(threads, [KvPool(4, 2, 32, kv)], batch, kv)
    found = cache.attend(0, query, key, value, Scoring(0.2))[40]
    assert torch.allclose(found, value[40].repeat_interleave(3, 0), rtol=0.07, atol=0.02)


@pytest.mark.parametrize("kv", KV)
def test_a_token_without_numbers_spoils_those_who_see_it(threads: native.Threads, kv: str) -> None:
    query, key, value = (random(24, heads, 32, seed=heads) for heads in (6, 2, 2))
    batch = ragged(([0] * 20, 0, [3, 1]), ([0] * 4, 0, [2]))
    wanted = NativeCache(threads, [KvPool(4, 2, 32, kv)], batch, kv).attend(
        0, query, key, value, Scoring(0.2)
    )
    key[10, 1, 5] = math.nan
    found = NativeCache(threads, [KvPool(4, 2, 32, kv)], batch, kv).attend(
        0, query, key, value, Scoring(0.2)
    )
    assert torch.isnan(found[10:20, 3:]).all()
    assert torch.equal(found[20:], wanted[20:])
    assert torch.equal(found[:, :3], wanted[:, :3])


@pytest.mark.parametrize("kv", KV)
def test_what_another_left_in_a_block_is_never_seen(threads: native.Threads, kv: str) -> None:
    query, key, value = (random(20, heads, 32, seed=heads) for heads in (6, 2, 2))
    fresh, used = KvPool(4, 2, 32, kv), KvPool(4, 2, 32, kv)
    spoiled = torch.full((64, 2, 32), math.nan)
    whole = ragged(([0] * 64, 0, [0, 1, 2, 3]))
    NativeCache(threads, [used], whole, kv).attend(
        0, spoiled.repeat(1, 3, 1), spoiled, spoiled, Scoring(1.0)
    )
    batch = ragged(([0] * 20, 0, [3, 1]))
    found = [
        NativeCache(threads, [pool], batch, kv).attend(0, query, key, value, Scoring(0.2))
        for pool in (fresh, used)
    ]
    assert torch.equal(*found)


def test_without_a_compiler_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(compiler.CompilerMissing, match=r"apt-get install g\+\+"):
        compiler.library(tmp_path)


def test_a_compiler_that_fails_is_named_with_its_first_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'no room left' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(compiler.CompilerMissing, match=r"broken-c\+\+ did not .*: no room left"):
        compiler.library(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
