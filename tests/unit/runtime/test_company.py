"""A sequence's tokens do not depend on what else runs, nor on how it was cut."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.runtime.engines import (
    GREEDY,
    Steps,
    make_engine,
    outputs_of,
    tokens_of,
    wait_for_no_blocks,
)
from tests.unit.runtime.fake_decoder import FakeDecoder

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.errors import GenerationFailed
from tidegate_runtime.speculation.draft_model import DraftModelProposer
from tidegate_runtime.speculation.ngram import NgramProposer

Start = Callable[..., Engine]
HABIT = 0.8


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    engines: list[Engine] = []

    def make(decoder: FakeDecoder | None = None, **options: Any) -> Engine:
        engines.append(make_engine(decoder or FakeDecoder(habit=HABIT), **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop("the test is over")


def requests(count: int = 64) -> list[SequenceRequest]:
    """Prompts of all lengths, half of them beginning alike; greedy and seeded ones."""
    chance = random.Random(3)
    shared = [chance.randrange(1, 29) for _ in range(70)]
    made = []
    for number in range(count):
        own = [chance.randrange(1, 29) for _ in range(chance.randint(1, 60))]
        prompt = shared[: chance.choice((16, 32, 48, 70))] + own if number % 2 else own
        sampling = GREEDY
        if number % 3 == 0:
            sampling = SamplingParams(seed=number, temperature=0.8, top_p=0.9)
        if number % 7 == 0:
            sampling = replace(sampling, repetition_penalty=1.3, presence_penalty=0.5)
        tokens = chance.randint(1, 40)
        made.append(SequenceRequest(tuple(prompt), tokens, sampling, priority=number % 5 // 4))
    return made


ALONE: list[list[int | None]] = []


async def alone(start: Start) -> list[list[int | None]]:
    """What each request gives by itself, nothing cached; worked out once."""
    if not ALONE:
        engine = start(step_tokens=4096, blocks=4096)
        salted = [replace(request, project=str(at)) for at, request in enumerate(requests())]
        ALONE.extend([await tokens_of(engine, request) for request in salted])
    return ALONE


def draft_model(habit: float, seed: int = 1, blocks: int = 512) -> DraftModelProposer:
    small = FakeDecoder(habit=habit, seed=seed)
    small.allocate(blocks)
    return DraftModelProposer(small, BlockManager(blocks))


MIXES: dict[str, Callable[[], dict[str, Any]]] = {
    "all at once": lambda: {"max_sequences": 64},
    "two at a time": lambda: {"max_sequences": 2},
    "small chunks": lambda: {"max_sequences": 8, "step_tokens": 9},
    "one token a step": lambda: {"max_sequences": 1, "step_tokens": 1},
    "a tight cache": lambda: {"max_sequences": 16, "blocks": 12},
    "a tight cache in chunks": lambda: {"max_sequences": 16, "blocks": 11, "step_tokens": 17},
    "n-grams": lambda: {"max_sequences": 16, "proposer": NgramProposer(), "eager": True},
    "n-grams in a tight cache": lambda: {
        "max_sequences": 16,
        "blocks": 14,
        "proposer": NgramProposer(),
        "eager": True,
    },
    "n-grams as they pay": lambda: {"proposer": NgramProposer()},
    "a perfect draft model": lambda: {"proposer": draft_model(HABIT), "eager": True},
    "a poor draft model": lambda: {"proposer": draft_model(0.4), "eager": True},
    "a draft model short of blocks": lambda: {
        "proposer": draft_model(HABIT, blocks=13),
        "eager": True,
    },
}


@pytest.mark.parametrize("mix", MIXES)
async def test_tokens_are_the_same_in_any_company(start: Start, mix: str) -> None:
    expected = await alone(start)
    steps = Steps()
    engine = start(observer=steps, **MIXES[mix]())
    found = await asyncio.gather(*(tokens_of(engine, request) for request in requests()))
    again = await asyncio.gather(*(tokens_of(engine, request) for request in requests()))
    assert found == expected
    assert again == expected
    assert steps.total.hit_tokens > 0
    if "tight" in mix:
        assert steps.total.preempted > 0
    if "proposer" in MIXES[mix]():
        assert steps.total.drafted_tokens > 0
    if "eager" in MIXES[mix]():
        assert 0 < steps.total.accepted_tokens < steps.total.drafted_tokens
    await wait_for_no_blocks(engine)


async def test_choices_of_one_prompt_compute_it_once(start: Start) -> None:
    decoder = FakeDecoder()
    engine = start(decoder)
    prompt = tuple(range(1, 29)) * 3
    params = SamplingParams(seed=5)
    asked = [SequenceRequest(prompt, 6, params, index=n, choice=n) for n in range(4)]
    async with engine.generate(asked) as events:
        found = [event async for event in events]
    by_choice = [[event.token for event in found if event.index == n] for n in range(4)]
    assert len({tuple(tokens) for tokens in by_choice}) == 4
    lone = start(FakeDecoder())
    assert by_choice == [await tokens_of(lone, replace(one, index=0)) for one in asked]
    # 84 tokens: five full blocks are shared, four tokens are each choice's own.
    assert sum(decoder.rows) == 84 + 3 * 4 + 4 * 5


async def test_a_shared_block_is_written_once(start: Start) -> None:
    decoder = FakeDecoder()
    engine = start(decoder)
    prompt = tuple(range(1, 29)) * 3
    await tokens_of(engine, SequenceRequest(prompt, 4, GREEDY))
    before = decoder.writes.copy()
    await tokens_of(engine, SequenceRequest(prompt, 4, GREEDY))
    assert (decoder.writes - before).sum() == 4 + 3


async def test_projects_share_nothing(start: Start) -> None:
    steps = Steps()
    engine = start(observer=steps)
    prompt = tuple(range(1, 29)) * 3
    for project in ("a", "b"):
        await tokens_of(engine, SequenceRequest(prompt, 2, GREEDY, project=project))
    assert steps.total.hit_tokens == 0
    await tokens_of(engine, SequenceRequest(prompt, 2, GREEDY, project="a"))
    assert steps.total.hit_tokens == 80


@pytest.mark.parametrize("proposer", [None, NgramProposer])
async def test_a_sequence_without_numbers_ends_alone(
    start: Start, proposer: Callable[[], NgramProposer] | None
) -> None:
    options = {"proposer": proposer()} if proposer else {}
    engine = start(**options)
    asked = requests(12)
    expected = [await tokens_of(start(), request) for request in asked]
    healthy = [asyncio.create_task(tokens_of(engine, request)) for request in asked]
    for broken in range(3):
        poisoned = SequenceRequest((0, 0, *range(1, 20 + broken)), 20, GREEDY)
        with pytest.raises(GenerationFailed, match="not finite"):
            await tokens_of(engine, poisoned)
    assert await asyncio.gather(*healthy) == expected
    await wait_for_no_blocks(engine)
    assert engine.dead is None


async def test_blocks_of_a_failed_sequence_are_not_found_again(start: Start) -> None:
    steps = Steps()
    engine = start(observer=steps, step_tokens=16)
    for _ in range(2):
        with pytest.raises(GenerationFailed, match="not finite"):
            await tokens_of(engine, SequenceRequest((0, 0, *range(1, 29), *range(9)), 20, GREEDY))
    assert steps.total.hit_tokens == 0


@pytest.mark.parametrize("proposer", [None, NgramProposer])
async def test_two_hundred_requests_that_come_and_go_leave_no_block(
    start: Start, proposer: Callable[[], NgramProposer] | None
) -> None:
    chance = random.Random(8)
    options = {"proposer": proposer()} if proposer else {}
    engine = start(blocks=40, max_sequences=12, step_tokens=64, **options)

    async def one(number: int) -> bool:
        await asyncio.sleep(chance.random() * 0.3)
        prompt = tuple(chance.randrange(1, 29) for _ in range(chance.randint(1, 120)))
        request = SequenceRequest(
            prompt, chance.randint(1, 60), GREEDY, project=str(number % 3), priority=number % 3
        )
        leaves_after = chance.choice((None, None, 0, 1, 5, 20))
        count = 0
        async with engine.generate([request]) as events:
            async for _ in events:
                count += 1
                if count == leaves_after:
                    return False
        return count == request.max_tokens

    finished = await asyncio.gather(*(one(number) for number in range(200)))
    assert sum(finished) > 100
    await wait_for_no_blocks(engine)
    assert engine.dead is None


async def test_a_prompt_is_scored_without_generating(start: Start) -> None:
    prompt = tuple(range(1, 29)) * 2
    scoring = replace(GREEDY, logprobs=2)
    asked = SequenceRequest(prompt, 0, scoring, prompt_logprobs=True)
    whole = await outputs_of(start(), asked)
    engine = start(step_tokens=7, max_sequences=1)
    await tokens_of(engine, SequenceRequest(prompt, 3, GREEDY))  # it must not be taken from cache
    chunked = await outputs_of(engine, asked)
    assert [(event.token, event.text, event.finish_reason) for event in whole] == [
        (None, "", "length")
    ]
    assert [found.token for found in whole[0].prompt_logprobs] == list(prompt[1:])
    assert whole == chunked
    more = await outputs_of(start(), replace(asked, max_tokens=2))
    assert more[0].prompt_logprobs == whole[0].prompt_logprobs
    assert more[1].prompt_logprobs == ()
    await wait_for_no_blocks(engine)
