"""The step loop around a runner without a model: logits are made from the tokens alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine, Runner
from tidegate_runtime.engine.model_runner import StepLogits
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceRequest
from tidegate_runtime.errors import EngineDead, GenerationFailed, RequestRefused

GREEDY = SamplingParams(temperature=0.0)
POISON = 13


class Letters:
    """A tokenizer of one letter per token."""

    def decode(self, tokens: list[int], **options: Any) -> str:
        return "".join(chr(ord("a") + token) for token in tokens)


class CountingRunner:
    """The next token is the last one plus one; a sequence that holds POISON gets no numbers."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.steps = 0
        self.pause_s = pause_s

    def forward(self, work: dict[Sequence, int]) -> StepLogits:
        self.steps += 1
        time.sleep(self.pause_s)
        rows = {sequence: range(place, place + 1) for place, sequence in enumerate(work)}
        logits = torch.zeros(len(work), 26)
        for place, sequence in enumerate(work):
            logits[place, (sequence.tokens[-1] + 1) % 26] = 9.0
            if POISON in sequence.request.prompt:
                logits[place] = float("nan")
        return StepLogits(logits, rows)


class BrokenRunner:
    """Fails at every step."""

    def forward(self, work: dict[Sequence, int]) -> StepLogits:
        raise RuntimeError("the device is gone")


class Steps:
    """Counts what the engine reports."""

    preempted = 0

    def step(self, seconds: float, prompt_tokens: int, preempted: int) -> None:
        self.preempted += preempted


def request(*prompt: int, max_tokens: int = 4, index: int = 0, **options: Any) -> SequenceRequest:
    return SequenceRequest(prompt, max_tokens, GREEDY, index=index, **options)


Start = Callable[..., Engine]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    engines: list[Engine] = []

    def make(runner: Runner, blocks: int = 16, **options: Any) -> Engine:
        scheduler = Scheduler(BlockManager(blocks), max_sequences=4)
        options = {"eos_tokens": frozenset({25}), "observer": Steps(), **options}
        engine = Engine(runner, scheduler, Letters(), **options)
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.stop("the test is over")


async def text_of(engine: Engine, *requests: SequenceRequest) -> list[str]:
    texts = ["" for _ in requests]
    async with engine.generate(requests) as events:
        async for event in events:
            texts[event.index] += event.text
    return texts


async def wait_for_no_blocks(engine: Engine) -> float:
    started = time.monotonic()
    while engine.stats().used_blocks:
        assert time.monotonic() - started < 1.0
        await asyncio.sleep(0.005)
    return time.monotonic() - started


async def test_sequences_of_one_call_are_told_apart_by_index(start: Start) -> None:
    engine = start(CountingRunner())
    assert await text_of(engine, request(0), request(9, index=1)) == ["bcde", "klmn"]


async def test_the_end_token_stops_and_is_not_shown(start: Start) -> None:
    engine = start(CountingRunner())
    async with engine.generate([request(22, max_tokens=9)]) as events:
        seen = [event async for event in events]
    assert "".join(event.text for event in seen) == "xy"
    assert seen[-1].finish_reason == "stop"
    assert len(seen) == 3


async def test_ignore_eos_goes_on(start: Start) -> None:
    engine = start(CountingRunner())
    assert await text_of(engine, request(23, max_tokens=3, ignore_eos=True)) == ["yza"]


async def test_a_stop_string_ends_the_sequence_and_frees_its_blocks(start: Start) -> None:
    engine = start(CountingRunner())
    assert await text_of(engine, request(0, max_tokens=20, stop_strings=("fg",))) == ["bcde"]
    await wait_for_no_blocks(engine)


async def test_leaving_early_frees_the_blocks(start: Start) -> None:
    engine = start(CountingRunner(pause_s=0.01), eos_tokens=frozenset())
    async with engine.generate([request(0, max_tokens=200)]) as events:
        await anext(events)
        assert engine.stats().used_blocks > 0
    await wait_for_no_blocks(engine)


async def test_an_idle_engine_runs_no_step(start: Start) -> None:
    runner = CountingRunner()
    engine = start(runner)
    await text_of(engine, request(0))
    steps, used = runner.steps, time.process_time()
    await asyncio.sleep(0.3)
    assert runner.steps == steps
    assert time.process_time() - used < 0.1


async def test_a_sequence_that_fails_ends_alone(start: Start) -> None:
    engine = start(CountingRunner())
    healthy = asyncio.create_task(text_of(engine, request(0, max_tokens=20)))
    with pytest.raises(GenerationFailed, match="not finite"):
        await text_of(engine, request(POISON))
    assert await healthy == ["bcdefghijklmnopqrstu"]
    assert engine.dead is None
    await wait_for_no_blocks(engine)


async def test_a_step_that_fails_ends_every_sequence_and_the_engine(start: Start) -> None:
    deaths: list[EngineDead] = []
    engine = start(BrokenRunner(), on_death=deaths.append)
    failures = await asyncio.gather(
        text_of(engine, request(0)), text_of(engine, request(1)), return_exceptions=True
    )
    assert all(isinstance(failure, EngineDead) for failure in failures)
    with pytest.raises(EngineDead, match="the device is gone"):
        await text_of(engine, request(2))
    assert len(deaths) == 1


async def test_what_can_never_fit_is_refused_before_anything_is_taken(start: Start) -> None:
    runner = CountingRunner()
    engine = start(runner, blocks=2)
    with pytest.raises(RequestRefused, match="33") as refused:
        await text_of(engine, request(0, max_tokens=4), request(0, max_tokens=32))
    assert refused.value.code == "kv_cache_exceeded"
    assert runner.steps == 0


async def test_a_preempted_sequence_gives_the_same_text(start: Start) -> None:
    steps = Steps()
    engine = start(CountingRunner(), blocks=4, observer=steps, eos_tokens=frozenset())
    alone = [await text_of(engine, request(n, max_tokens=40)) for n in range(3)]
    together = await asyncio.gather(*(text_of(engine, request(n, max_tokens=40)) for n in range(3)))
    assert steps.preempted > 0
    assert together == alone


async def test_stopping_fails_what_still_runs(start: Start) -> None:
    engine = start(CountingRunner(pause_s=0.01), eos_tokens=frozenset())
    running = asyncio.create_task(text_of(engine, request(0, max_tokens=200)))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(engine.stop, "drained too slowly")
    with pytest.raises(EngineDead, match="drained too slowly"):
        await running
