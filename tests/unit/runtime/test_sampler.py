from collections import Counter
from random import Random

import pytest
import torch

from tidegate_runtime.engine.sampler import sample, token_logprobs
from tidegate_runtime.engine.sequence import SamplingParams
from tidegate_runtime.errors import GenerationFailed

LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])
PROBABILITIES = LOGITS.softmax(0)


def draw(params: SamplingParams, count: int = 4000, logits: torch.Tensor = LOGITS) -> Counter[int]:
    chance = Random(0)
    return Counter(sample(logits, params, {}, chance).token for _ in range(count))


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw(SamplingParams(temperature=0.0), 20) == {1: 20}


def test_draws_follow_the_distribution() -> None:
    found = draw(SamplingParams(), 8000)
    for token in range(5):
        assert found[token] / 8000 == pytest.approx(float(PROBABILITIES[token]), abs=0.02)


def test_a_low_temperature_sharpens_the_distribution() -> None:
    sharp = (LOGITS / 0.5).softmax(0)
    found = draw(SamplingParams(temperature=0.5), 8000)
    assert found[1] / 8000 == pytest.approx(float(sharp[1]), abs=0.02)


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draw(SamplingParams(top_k=2))) == {1, 2}


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    assert set(draw(SamplingParams(top_p=float(PROBABILITIES[1]) - 0.01))) == {1}
    assert set(draw(SamplingParams(top_p=float(PROBABILITIES[1]) + 0.01))) == {1, 2}


def test_top_p_is_right_when_the_guessed_head_is_too_short() -> None:
    flat = torch.zeros(5000)
    found = draw(SamplingParams(top_p=0.9), 3000, flat)
    assert len(found) > 1500
    assert len({token for token in found if token >= 0}) <= 4501


def test_min_p_drops_what_is_far_less_likely_than_the_best() -> None:
    assert set(draw(SamplingParams(min_p=0.3))) == {1, 2}
    assert set(draw(SamplingParams(min_p=0.3, top_p=0.99))) == {1, 2}


def test_equal_seeds_draw_equal_tokens() -> None:
    params = SamplingParams()
    first = [sample(LOGITS, params, {}, Random("9/0")).token for _ in range(3)]
    assert len(set(first)) == 1


def test_logit_bias_can_force_and_forbid_a_token() -> None:
    assert set(draw(SamplingParams(logit_bias={4: 100.0}))) == {4}
    assert 1 not in draw(SamplingParams(logit_bias={1: -100.0}))


def test_penalties_lower_what_was_generated_by_presence_and_by_frequency() -> None:
    greedy = {"temperature": 0.0}
    presence = SamplingParams(presence_penalty=1.5, **greedy)
    frequency = SamplingParams(frequency_penalty=0.6, **greedy)
    assert sample(LOGITS, presence, {1: 1}, Random()).token == 2
    assert sample(LOGITS, frequency, {1: 1}, Random()).token == 1
    assert sample(LOGITS, frequency, {1: 2}, Random()).token == 2


def test_the_caller_s_logits_are_left_as_they_are() -> None:
    before = LOGITS.clone()
    sample(LOGITS, SamplingParams(logit_bias={0: 5.0}, presence_penalty=1.0), {1: 1}, Random())
    assert torch.equal(LOGITS, before)


def test_logprobs_are_the_model_s_own_whatever_the_temperature() -> None:
    params = SamplingParams(temperature=0.0, logprobs=2, logit_bias={0: 100.0})
    sampled = sample(LOGITS, params, {}, Random())
    assert sampled.token == 0
    assert sampled.logprobs is not None
    assert sampled.logprobs.logprob == pytest.approx(float(LOGITS.log_softmax(0)[0]))
    assert [token for token, _ in sampled.logprobs.top] == [1, 2]


def test_logprobs_of_many_rows_are_those_of_each_row() -> None:
    logits = torch.randn(150, 11, generator=torch.Generator().manual_seed(0))
    tokens = [row % 11 for row in range(150)]
    found = token_logprobs(logits, tokens, 3)
    for row, token in enumerate(tokens):
        assert found[row].logprob == pytest.approx(float(logits[row].log_softmax(0)[token]))
        assert len(found[row].top) == 3


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_fail_the_sequence(broken: float) -> None:
    with pytest.raises(GenerationFailed, match="not finite"):
        sample(torch.tensor([0.0, broken]), SamplingParams(), {}, Random())
