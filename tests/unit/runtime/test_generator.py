"""From a request to its answer, over an engine without weights."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.runtime.engines import Letters, make_engine
from tests.unit.runtime.fake_decoder import FakeDecoder

from tidegate.protocol.openai import ChatCompletionRequest, CompletionRequest
from tidegate.protocol.replica import Priority
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.generator import Generator
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.replica import Pressure

NOBODY = Caller(0.0)
LONG = list(range(1, 26)) * 2


class Tokenizer(Letters):
    def convert_ids_to_tokens(self, token: int) -> str:
        return self.decode([token])


def count(metrics: Metrics, name: str, **labels: str) -> float:
    labels = {"model_name": "m", **labels}
    return metrics.registry.get_sample_value(f"vllm:{name}_total", labels) or 0.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("m")


@pytest.fixture
async def generator(metrics: Metrics) -> AsyncIterator[Generator]:
    engine = make_engine(FakeDecoder(), observer=metrics)
    loaded: Any = SimpleNamespace(
        tokenizer=Tokenizer(),
        vocabulary_size=29,
        context_tokens=512,
        sampling_defaults={"repetition_penalty": 1.1},
    )
    yield Generator(loaded, engine)
    engine.stop("the test is over")


def complete(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": LONG, **fields})


async def test_choices_of_one_prompt_share_its_computation(
    generator: Generator, metrics: Metrics
) -> None:
    made = await generator.complete(complete(n=3, max_tokens=4, seed=1), NOBODY)
    assert len({choice.text for choice in made.choices}) == 3
    assert count(metrics, "prefix_cache_hits") == 2 * 48
    assert count(metrics, "prefix_cache_queries") == 3 * 50
    assert count(metrics, "generation_tokens") == 12
    assert count(metrics, "prompt_tokens") == 3 * 50


async def test_usage_says_what_of_each_prompt_was_cached(generator: Generator) -> None:
    first = await generator.complete(complete(n=3, max_tokens=2), NOBODY)
    prompts = [LONG, list(reversed(LONG)), LONG]
    again = await generator.complete(complete(prompt=prompts, n=2, max_tokens=1), NOBODY)
    found = [made.usage.prompt_tokens_details for made in (first, again) if made.usage]
    assert [details and details.cached_tokens for details in found] == [0, 48 + 0 + 48]
    asked = complete(stream=True, stream_options={"include_usage": True}, max_tokens=1)
    *_, last = [chunk async for chunk in generator.stream_complete(asked, NOBODY)]
    assert last.usage is not None
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 48


async def test_a_prompt_is_scored_without_a_completion(generator: Generator) -> None:
    asked = complete(max_tokens=0, echo=True, logprobs=1)
    made = await generator.complete(asked, NOBODY)
    choice = made.choices[0]
    assert (choice.text, choice.finish_reason) == (Letters().decode(LONG), "length")
    assert made.usage is not None
    assert made.usage.completion_tokens == 0
    assert choice.logprobs is not None
    assert len(choice.logprobs.token_logprobs) == 50
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value is not None and value < 0 for value in choice.logprobs.token_logprobs[1:])
    more = await generator.complete(complete(max_tokens=2, echo=True, logprobs=1), NOBODY)
    assert more.choices[0].logprobs is not None
    assert more.choices[0].logprobs.token_logprobs[:50] == choice.logprobs.token_logprobs


async def test_a_scored_prompt_streams(generator: Generator) -> None:
    asked = complete(
        max_tokens=0, echo=True, stream=True, stream_options={"include_usage": True}, logprobs=0
    )
    first, usage = [chunk async for chunk in generator.stream_complete(asked, NOBODY)]
    assert first.choices[0].text == Letters().decode(LONG)
    assert first.choices[0].logprobs is not None
    assert first.choices[0].finish_reason == "length"
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 0


def test_the_engine_is_told_all_that_was_asked(generator: Generator) -> None:
    asked = complete(
        prompt=[LONG, LONG[:9]], n=2, max_tokens=9, min_tokens=3, repetition_penalty=1.5
    )
    job = generator._completion_job(asked, Caller(0.0, "prj_1", Priority.BATCH))
    assert [(one.index, one.choice) for one in job.sequences] == [
        (0, 0),
        (1, 1),
        (2, 0),
        (3, 1),
    ]
    for one in job.sequences:
        assert (one.project, one.priority, one.min_tokens) == ("prj_1", 2, 3)
        assert one.sampling.repetition_penalty == 1.5
    silent = generator._completion_job(complete(), NOBODY).sequences[0]
    assert silent.sampling.repetition_penalty == 1.1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 2.5}, "repetition_penalty"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError, match=param):
        complete(**fields)


def test_a_chat_cannot_ask_for_more_tokens_than_it_may_have() -> None:
    with pytest.raises(ValidationError, match="min_tokens"):
        ChatCompletionRequest.model_validate(
            {
                "model": "m",
                "messages": [{"role": "user", "content": "x"}],
                "max_completion_tokens": 2,
                "min_tokens": 3,
            }
        )


async def test_a_service_says_how_full_its_cache_is(generator: Generator) -> None:
    assert generator.pressure() == Pressure(0.0, 0)
    answer = generator.stream_complete(
        complete(max_tokens=40, stream=True, ignore_eos=True), NOBODY
    )
    async with aclosing(answer):
        await anext(answer)
        assert 0.0 < generator.pressure().kv_used <= 1.0
