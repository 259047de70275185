"""Sequences with adapters in one engine: each as if it were alone with its own model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.runtime.engines import GREEDY, make_engine, outputs_of, tokens_of
from tests.unit.runtime.tiny_decoders import CONTEXT_TOKENS, packed_weights, tiny_model

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import Sequence, SequenceId, SequenceRequest
from tidegate_runtime.models.native import NativeDecoder
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.speculation.draft_model import DraftModelProposer

PROMPT = tuple([5, 6, 7, 8, 9, 10, 11, 12] * 5)
REQUEST = SequenceRequest(PROMPT, 30, GREEDY, ignore_eos=True)


def make_decoder() -> NativeDecoder:
    model = tiny_model("Llama", tie_word_embeddings=True)
    weights = packed_weights(model, 8)
    return NativeDecoder(model.config, weights, threads=1, kv="int8", context_tokens=CONTEXT_TOKENS)


@pytest.fixture(scope="module")
def decoder() -> NativeDecoder:
    return make_decoder()


def draft_model() -> DraftModelProposer:
    """The model itself, which knows no adapters."""
    decoder = make_decoder()
    decoder.allocate(64)
    return DraftModelProposer(decoder, BlockManager(64), 3)


def random_adapter(decoder: NativeDecoder, seed: int, size: float = 0.2) -> Adapter:
    chance = torch.Generator().manual_seed(seed)
    updates = {
        name: LowRank(
            torch.randn(4, inputs, generator=chance) * size,
            torch.randn(outputs, 4, generator=chance) * size,
        )
        for name, (outputs, inputs) in decoder.adaptable().items()
    }
    return decoder.adapt(f"adapter {seed}", updates)


@pytest.fixture(scope="module")
def requests(decoder: NativeDecoder) -> list[SequenceRequest]:
    """The same prompt for the model alone and for three adapters."""
    adapters = [random_adapter(decoder, seed) for seed in range(3)]
    return [REQUEST, *(replace(REQUEST, adapter=adapter) for adapter in adapters)]


@pytest.fixture(scope="module")
def alone(decoder: NativeDecoder, requests: list[SequenceRequest]) -> list[list[int | None]]:
    """What each says in an engine of its own."""

    def say(request: SequenceRequest) -> list[int | None]:
        with running(decoder) as engine:
            return asyncio.run(tokens_of(engine, request))

    said = [say(request) for request in requests]
    assert len({tuple(tokens) for tokens in said}) == len(said)
    return said


@contextmanager
def running(decoder: Any, **options: Any) -> Iterator[Engine]:
    engine = make_engine(decoder, **options)
    yield engine
    engine.stop("the test is over")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"step_tokens": 24},
        {"blocks": 13},
        {"eager": True, "proposer": draft_model},
    ],
    ids=["plain", "chunked", "preempted", "speculating"],
)
def test_company_changes_no_token(
    decoder: NativeDecoder,
    requests: list[SequenceRequest],
    alone: list[list[int | None]],
    options: dict[str, Any],
) -> None:
    async def together(engine: Engine) -> list[list[int | None]]:
        return list(await asyncio.gather(*(tokens_of(engine, each) for each in requests * 2)))

    if "proposer" in options:
        options = {**options, "proposer": options["proposer"]()}
    with running(decoder, **options) as engine:
        assert asyncio.run(together(engine)) == alone * 2
        # And once more, over prefixes that the first ones left.
        assert asyncio.run(together(engine)) == alone * 2
        totals = engine.stats().totals
        assert bool(totals.preempted) == ("blocks" in options)
        assert bool(totals.accepted_tokens) == ("proposer" in options)
        assert totals.hit_tokens


def test_equal_weights_share_prefixes_and_others_do_not(decoder: NativeDecoder) -> None:
    def first_hash(adapter: Adapter | None, project: str = "") -> bytes:
        request = replace(REQUEST, adapter=adapter, project=project)
        return Sequence.start(SequenceId(1), request).hashes(1)[0]

    one, same, other = (random_adapter(decoder, seed) for seed in (1, 1, 2))
    assert first_hash(one) == first_hash(same)
    assert len({first_hash(one), first_hash(other), first_hash(None)}) == 3
    assert first_hash(one) != first_hash(one, "someone")


def test_an_adapter_that_makes_no_numbers_fails_its_own_sequence_alone(
    decoder: NativeDecoder, requests: list[SequenceRequest], alone: list[list[int | None]]
) -> None:
    bad = replace(REQUEST, adapter=random_adapter(decoder, 9, size=1e30))

    async def both(engine: Engine) -> list[Any]:
        work = (outputs_of(engine, bad), *(tokens_of(engine, each) for each in requests))
        return list(await asyncio.gather(*work, return_exceptions=True))

    with running(decoder) as engine:
        failed, *others = asyncio.run(both(engine))
        assert "logits are not finite" in str(failed)
        assert others == alone
        assert engine.dead is None
