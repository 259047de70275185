"""The step loop around a decoder that counts: the next token is the last one plus one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.engines import GREEDY, Letters, Steps, wait_for_no_blocks

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.errors import EngineDead, GenerationFailed, RequestRefused
from tidegate_runtime.models.base import StepBatch, StepLogits
from tidegate_runtime.speculation.base import MAX_DRAFTS, Reach
from tidegate_runtime.text.detokenizer import WindowDetokenizer

POISON = 13


class CountingDecoder:
    """After the token `poison` it gives no numbers."""

    vocabulary_size = 26

    def __init__(self, pause_s: float = 0.0, poison: int | None = None) -> None:
        self.steps = 0
        self.pause_s = pause_s
        self.poison = poison

    def forward(self, batch: StepBatch) -> StepLogits:
        self.steps += 1
        time.sleep(self.pause_s)
        logits = torch.zeros(len(batch.wanted), 26)
        for row, token in enumerate(batch.tokens[batch.wanted]):
            logits[row, (token + 1) % 26] = 9.0
            if token == self.poison:
                logits[row] = float("nan")
        return StepLogits.of(logits)


class BrokenDecoder:
    """Fails at every step."""

    def forward(self, batch: StepBatch) -> StepLogits:
        raise RuntimeError("the device is gone")


class Oracle:
    """Guesses that are right up to a given number, and wrong from there on."""

    at_once = False

    def __init__(self, right: int) -> None:
        self.right = right

    def reach(self, sequence: Any) -> Reach:
        return Reach(MAX_DRAFTS)

    def propose(self, wanted: Any) -> dict[Any, list[int]]:
        return {s: self._guess(int(s.tokens[-1]), count) for s, count in wanted.items()}

    def forget(self, sequence: Any) -> None:
        pass

    def _guess(self, last: int, count: int) -> list[int]:
        return [(last + 1 + n + (n >= self.right)) % 26 for n in range(count)]


def request(*prompt: int, max_tokens: int = 4, index: int = 0, **options: Any) -> SequenceRequest:
    options = {"sampling": GREEDY, **options}
    return SequenceRequest(prompt, max_tokens, index=index, **options)


Start = Callable[..., Engine]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    engines: list[Engine] = []

    def make(decoder: Any = None, blocks: int = 16, **options: Any) -> Engine:
        scheduler = Scheduler(BlockManager(blocks), max_sequences=4)
        options = {"eos_tokens": frozenset({25}), "observer": Steps(), **options}
        engine = Engine(ModelRunner(decoder or CountingDecoder()), scheduler, Letters(), **options)
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


async def test_sequences_of_one_call_are_told_apart_by_index(start: Start) -> None:
    engine = start(CountingDecoder())
    assert await text_of(engine, request(0), request(9, index=1)) == ["bcde", "klmn"]


async def test_the_end_token_stops_and_is_not_shown(start: Start) -> None:
    engine = start(CountingDecoder())
    async with engine.generate([request(22, max_tokens=9)]) as events:
        seen = [event async for event in events]
    assert "".join(event.text for event in seen) == "xy"
    assert seen[-1].finish_reason == "stop"
    assert len(seen) == 3


async def test_ignore_eos_goes_on(start: Start) -> None:
    engine = start(CountingDecoder())
    assert await text_of(engine, request(23, max_tokens=3, ignore_eos=True)) == ["yza"]


async def test_a_stop_string_ends_the_sequence_and_frees_its_blocks(start: Start) -> None:
    engine = start(CountingDecoder())
    assert await text_of(engine, request(0, max_tokens=20, stop_strings=("fg",))) == ["bcde"]
    await wait_for_no_blocks(engine)


async def test_leaving_early_frees_the_blocks(start: Start) -> None:
    engine = start(CountingDecoder(pause_s=0.01), eos_tokens=frozenset())
    async with engine.generate([request(0, max_tokens=200)]) as events:
        await anext(events)
        assert engine.stats().used_blocks > 0
    await wait_for_no_blocks(engine)


async def test_an_idle_engine_runs_no_step(start: Start) -> None:
    decoder = CountingDecoder()
    engine = start(decoder)
    await text_of(engine, request(0))
    thread = engine._thread.ident
    assert thread is not None
    cpu = time.pthread_getcpuclockid(thread)
    steps, used = decoder.steps, time.clock_gettime(cpu)
    await asyncio.sleep(0.3)
    assert decoder.steps == steps
    assert time.clock_gettime(cpu) - used < 0.1, "its thread's own time, whatever else runs"


async def test_a_sequence_that_fails_ends_alone(start: Start) -> None:
    engine = start(CountingDecoder(poison=POISON))
    healthy = asyncio.create_task(text_of(engine, request(14, max_tokens=20, ignore_eos=True)))
    with pytest.raises(GenerationFailed, match="not finite"):
        await text_of(engine, request(POISON))
    assert await healthy == ["pqrstuvwxyzabcdefghi"]
    assert engine.dead is None
    await wait_for_no_blocks(engine)


async def test_a_step_that_fails_ends_every_sequence_and_the_engine(start: Start) -> None:
    deaths: list[EngineDead] = []
    engine = start(BrokenDecoder(), on_death=deaths.append)
    failures = await asyncio.gather(
        text_of(engine, request(0)), text_of(engine, request(1)), return_exceptions=True
    )
    assert all(isinstance(failure, EngineDead) for failure in failures)
    with pytest.raises(EngineDead, match="the device is gone"):
        await text_of(engine, request(2))
    assert len(deaths) == 1


async def test_what_can_never_fit_is_refused_before_anything_is_taken(start: Start) -> None:
    decoder = CountingDecoder()
    engine = start(decoder, blocks=2)
    with pytest.raises(RequestRefused, match="33") as refused:
        await text_of(engine, request(0, max_tokens=4), request(0, max_tokens=32))
    assert refused.value.code == "kv_cache_exceeded"
    assert decoder.steps == 0


async def test_a_preempted_sequence_gives_the_same_text(start: Start) -> None:
    steps = Steps()
    engine = start(CountingDecoder(), blocks=4, observer=steps, eos_tokens=frozenset())
    alone = [await text_of(engine, request(n, max_tokens=40)) for n in range(3)]
    together = await asyncio.gather(*(text_of(engine, request(n, max_tokens=40)) for n in range(3)))
    assert steps.total.preempted > 0
    assert together == alone


async def test_stopping_fails_what_still_runs(start: Start) -> None:
    engine = start(CountingDecoder(pause_s=0.01), eos_tokens=frozenset())
    running = asyncio.create_task(text_of(engine, request(0, max_tokens=200)))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(engine.stop, "drained too slowly")
    with pytest.raises(EngineDead, match="drained too slowly"):
        await running


async def test_no_end_comes_before_min_tokens(start: Start) -> None:
    engine = start()
    async with engine.generate([request(23, max_tokens=9, min_tokens=3)]) as events:
        seen = [event async for event in events]
    # The end token (z) is refused as the second one, and the best of the rest is a.
    assert "".join(event.text for event in seen) == "yabcdefgh"
    assert seen[-1].finish_reason == "length"


async def test_the_metrics_know_of_an_answer_before_its_caller_does(start: Start) -> None:
    steps = Steps()
    engine = start(observer=steps)
    await text_of(engine, request(0))
    assert steps.total.generated_tokens == 4
    assert engine.stats().totals.generated_tokens == 4


async def test_a_tokenizer_that_fails_ends_that_sequence_alone(start: Start) -> None:
    class Strict(Letters):
        def decode(self, tokens: list[int], **options: Any) -> str:
            if 7 in tokens:
                raise ValueError("no letter")
            return super().decode(tokens, **options)

    steps = Steps()
    engine = start(observer=steps)
    engine._new_detokenizer = lambda: WindowDetokenizer(Strict())
    healthy = asyncio.create_task(text_of(engine, request(8)))
    with pytest.raises(GenerationFailed, match="no letter"):
        await text_of(engine, request(5, max_tokens=3))
    assert await healthy == ["jklm"]
    assert steps.total.generated_tokens == 4 + 1
    await wait_for_no_blocks(engine)


async def test_a_choice_that_fails_ends_that_sequence_alone(start: Start) -> None:
    engine = start()
    penalized = replace(GREEDY, presence_penalty=0.1)
    healthy = asyncio.create_task(text_of(engine, request(8, max_tokens=9, sampling=penalized)))
    beyond = replace(GREEDY, logit_bias={99: 1.0})
    with pytest.raises(GenerationFailed, match="IndexError"):
        await text_of(engine, request(5, sampling=beyond))
    assert await healthy == ["jklmnopqr"]
    await wait_for_no_blocks(engine)


# --- speculation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0, 1, 2, MAX_DRAFTS])
@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1},
        {"max_tokens": 2},
        {"max_tokens": 40},
        {"max_tokens": 40, "stop_strings": ("ij",)},
        {"max_tokens": 40, "stop_strings": ("i", "kl")},
        {"max_tokens": 40, "ignore_eos": True},
        {"max_tokens": 40, "min_tokens": 30},
        {"max_tokens": 30, "sampling": replace(GREEDY, logprobs=3)},
        {"max_tokens": 30, "sampling": replace(GREEDY, presence_penalty=2.0)},
        {"max_tokens": 30, "sampling": replace(GREEDY, logit_bias={9: -100.0})},
        {"max_tokens": 30, "sampling": SamplingParams(seed=3, temperature=2.0, logprobs=1)},
    ],
)
async def test_every_event_is_the_same_with_speculation(
    start: Start, right: int, options: dict[str, Any]
) -> None:
    async def events_of(engine: Engine) -> list[TokenOutput]:
        async with engine.generate([request(14, 15, **options)]) as events:
            return [event async for event in events]

    expected = await events_of(start())
    steps = Steps()
    engine = start(observer=steps, proposer=Oracle(right))
    assert await events_of(engine) == expected
    if options["max_tokens"] > 2:
        assert steps.total.drafted_tokens > 0
        assert steps.total.generated_tokens == len(expected)
    await wait_for_no_blocks(engine)


async def test_right_guesses_save_steps(start: Start) -> None:
    decoder = CountingDecoder()
    engine = start(decoder, proposer=Oracle(MAX_DRAFTS), eos_tokens=frozenset())
    engine._speculator._times.of = lambda rows: np.ones(len(rows))  # type: ignore[union-attr]
    await text_of(engine, request(14, max_tokens=24))
    assert decoder.steps < 8


async def test_no_numbers_behind_a_wrong_guess_do_no_harm(start: Start) -> None:
    class Misled(Oracle):
        def _guess(self, last: int, count: int) -> list[int]:
            return [POISON] * count

    engine = start(CountingDecoder(poison=POISON), proposer=Misled(0))
    assert await text_of(engine, request(14, max_tokens=6)) == ["pqrstu"]


async def test_no_numbers_behind_a_right_guess_fail_the_sequence(start: Start) -> None:
    engine = start(CountingDecoder(poison=POISON), proposer=Oracle(MAX_DRAFTS))
    seen = ""
    with pytest.raises(GenerationFailed, match="not finite"):
        async with engine.generate([request(8, max_tokens=20)]) as events:
            async for event in events:
                seen += event.text
    assert seen == "jklmn"
    await wait_for_no_blocks(engine)
