"""What a replica counts, beside what its engine really did."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.runtime.engines import GREEDY, make_engine, outputs_of, wait_for_no_blocks
from tests.unit.runtime.fake_decoder import POISON, FakeDecoder

from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SequenceRequest
from tidegate_runtime.errors import GenerationFailed
from tidegate_runtime.server.histogram import WeightedHistogram
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.speculation.ngram import NgramProposer

Start = Callable[..., Engine]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("smol")


@pytest.fixture
async def start(metrics: Metrics) -> AsyncIterator[Start]:
    started: list[Engine] = []

    def make(decoder: FakeDecoder | None = None, **options: Any) -> Engine:
        started.append(make_engine(decoder or FakeDecoder(), observer=metrics, **options))
        return started[-1]

    yield make
    for engine in started:
        engine.stop("the test is over")


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"vllm:{name}", {"model_name": "smol", **labels})
    assert found is not None, name
    return found


def asked(first: int, max_tokens: int = 6, length: int = 20) -> SequenceRequest:
    prompt = tuple(1 + (first + n) % 28 for n in range(length))
    return SequenceRequest(prompt, max_tokens, GREEDY)


async def test_tokens_and_endings_are_those_that_were(start: Start, metrics: Metrics) -> None:
    engine = start()
    found = await asyncio.gather(*(outputs_of(engine, asked(n)) for n in range(3)))
    await outputs_of(engine, asked(0))
    assert sample(metrics, "prompt_tokens_total") == 4 * 20
    assert sample(metrics, "generation_tokens_total") == sum(map(len, found)) + 6
    assert sample(metrics, "request_success_total", finished_reason="length") == 4
    assert sample(metrics, "request_success_total", finished_reason="stop") == 0
    assert sample(metrics, "prefix_cache_queries_total") == 4 * 20
    assert sample(metrics, "prefix_cache_hits_total") == 16


async def test_each_token_after_the_first_is_one_wait(start: Start, metrics: Metrics) -> None:
    engine = start()
    await asyncio.gather(*(outputs_of(engine, asked(n, max_tokens=5 + n)) for n in range(3)))
    assert sample(metrics, "time_to_first_token_seconds_count") == 3
    assert sample(metrics, "inter_token_latency_seconds_count") == 4 + 5 + 6
    decoded = sample(metrics, "request_decode_time_seconds_sum")
    assert sample(metrics, "inter_token_latency_seconds_sum") == pytest.approx(decoded)


async def test_the_parts_of_a_request_s_time_add_up_to_it(start: Start, metrics: Metrics) -> None:
    engine = start()
    await outputs_of(engine, asked(0))
    parts = ("queue_time", "prefill_time", "decode_time")
    total = sum(sample(metrics, f"request_{part}_seconds_sum") for part in parts)
    whole = sample(metrics, "e2e_request_latency_seconds_sum")
    assert total == pytest.approx(whole)
    waited = sample(metrics, "time_to_first_token_seconds_sum")
    assert 0 < waited < whole


async def test_the_time_before_the_engine_counts_into_the_first_token(
    start: Start, metrics: Metrics
) -> None:
    engine = start()
    async with engine.generate([asked(0)], arrived_s=1.0) as events:
        (timeline,) = events.timelines
        [_ async for _ in events]
    assert timeline.first_token_s is not None
    waited = sample(metrics, "time_to_first_token_seconds_sum")
    assert waited == pytest.approx(timeline.first_token_s - 1.0)
    assert sample(metrics, "request_queue_time_seconds_sum") < waited


async def test_a_step_s_tokens_are_its_prefill_and_what_it_gave(
    start: Start, metrics: Metrics
) -> None:
    decoder = FakeDecoder()
    await outputs_of(start(decoder), asked(0))
    assert sample(metrics, "iteration_tokens_total_count") == decoder.steps == 6
    assert sample(metrics, "iteration_tokens_total_sum") == 20 + 6


async def test_an_aborted_request_has_its_own_ending_and_no_latency(
    start: Start, metrics: Metrics
) -> None:
    engine = start()
    async with engine.generate([asked(0, max_tokens=500)]) as events:
        await anext(events)
    await wait_for_no_blocks(engine)
    assert sample(metrics, "request_success_total", finished_reason="abort") == 1
    assert sample(metrics, "e2e_request_latency_seconds_count") == 0


async def test_a_request_that_fails_is_an_error_and_waited_for_no_token(
    start: Start, metrics: Metrics
) -> None:
    with pytest.raises(GenerationFailed):
        await outputs_of(start(), SequenceRequest((POISON, POISON, 3), 4, GREEDY))
    assert sample(metrics, "request_success_total", finished_reason="error") == 1
    assert sample(metrics, "time_to_first_token_seconds_count") == 0
    assert sample(metrics, "prompt_tokens_total") == 0


async def test_a_scored_prompt_is_counted_and_had_no_first_token(
    start: Start, metrics: Metrics
) -> None:
    await outputs_of(start(), asked(0, max_tokens=0))
    assert sample(metrics, "prompt_tokens_total") == 20
    assert sample(metrics, "time_to_first_token_seconds_count") == 0
    assert sample(metrics, "request_success_total", finished_reason="length") == 1


async def test_what_an_engine_that_died_left_undone_are_errors(
    start: Start, metrics: Metrics
) -> None:
    engine = start()
    async with engine.generate([asked(0, max_tokens=500), asked(1, max_tokens=500)]) as events:
        await anext(events)
        await asyncio.to_thread(engine.stop, "the machine is needed")
    assert sample(metrics, "request_success_total", finished_reason="error") == 2


async def test_a_timeline_tells_what_one_sequence_went_through(start: Start) -> None:
    engine = start(FakeDecoder(habit=1.0), proposer=NgramProposer(4), eager=True)
    await outputs_of(engine, asked(0, max_tokens=1))
    async with engine.generate([asked(0, max_tokens=40)]) as events:
        (timeline,) = events.timelines
        [_ async for _ in events]
    assert (timeline.prompt_tokens, timeline.cached_tokens) == (20, 16)
    assert (timeline.generated_tokens, timeline.ending) == (40, "length")
    assert 0 < timeline.accepted_tokens <= timeline.drafted_tokens
    assert timeline.steps == 40 - timeline.accepted_tokens


async def test_a_preempted_sequence_s_queue_time_ends_when_it_first_ran(
    start: Start, metrics: Metrics
) -> None:
    engine = start(blocks=4)
    async with engine.generate([asked(n, max_tokens=40, length=4) for n in range(3)]) as events:
        [_ async for _ in events]
    total = sum(timeline.preemptions for timeline in events.timelines)
    assert total == sample(metrics, "num_preemptions_total") > 0
    for one in events.timelines:
        assert one.started_s is not None
        assert one.first_token_s is not None
        assert one.queued_s <= one.started_s < one.first_token_s


def test_a_weighted_histogram_counts_a_value_as_often_as_it_is_told(metrics: Metrics) -> None:
    made = WeightedHistogram("waits", "Waits.", (0.1, 0.2), "smol", metrics.registry)
    made.observe(0.1, 3)
    made.observe(0.15, 2)
    made.observe(7.0, 1)
    counts = {
        bound: metrics.registry.get_sample_value(
            "waits_bucket", {"model_name": "smol", "le": bound}
        )
        for bound in ("0.1", "0.2", "+Inf")
    }
    assert counts == {"0.1": 3, "0.2": 5, "+Inf": 6}
    total = metrics.registry.get_sample_value("waits_sum", {"model_name": "smol"})
    assert total == pytest.approx(0.3 + 0.3 + 7.0)
