import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_runtime.engine.model_runner import LogitRows
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceId, SequenceRequest
from tidegate_runtime.models.base import StepLogits
from tidegate_runtime.ops import native
from tidegate_runtime.ops.shares import CHUNK, SharesOf, TorchShares
from tidegate_runtime.sampling.logprobs import token_logprobs
from tidegate_runtime.sampling.sampler import choose, draw

Found = Callable[..., Counter[int]]
LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])
PROBABILITIES = LOGITS.softmax(0)
GREEDY = SamplingParams(temperature=0.0)
NO_END = frozenset[int]()


@pytest.fixture(params=["torch", "native"])
def found(request: pytest.FixtureRequest) -> Found:
    """Tokens drawn at evenly spread quantiles, from shares made by torch or by the kernels."""
    shares_of: SharesOf = TorchShares
    if request.param == "native":
        shares_of = functools.partial(native.NativeShares, native.Threads(2))

    def draw_many(
        params: SamplingParams, count: int = 4000, logits: torch.Tensor = LOGITS
    ) -> Counter[int]:
        numbers = (np.arange(count) + 0.5) / count
        heat = [params.temperature] * count
        shares = shares_of(logits.unsqueeze(0), [0] * count, heat)
        return Counter(draw(shares, [params] * count, numbers.tolist()).tolist())

    return draw_many


def make_sequence(
    params: SamplingParams, output: list[int], prompt: tuple[int, ...] = (0,), **options: Any
) -> Sequence:
    request = SequenceRequest(prompt, 1000, params, **options)
    sequence = Sequence.start(SequenceId(1), request)
    for token in output:
        sequence.append(token)
    return sequence


def chosen(
    sequence: Sequence, logits: torch.Tensor = LOGITS, end: frozenset[int] = NO_END
) -> list[int]:
    count = 1 + sequence.drafts
    step = StepLogits.of(logits.repeat(count, 1))
    return choose(step, [LogitRows(sequence, 0, count)], end)[0]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert chosen(make_sequence(GREEDY, [])) == [1]


def test_draws_follow_the_distribution(found: Found) -> None:
    tokens = found(SamplingParams())
    for token in range(5):
        assert tokens[token] / 4000 == pytest.approx(float(PROBABILITIES[token]), abs=0.001)


def test_draws_from_a_vocabulary_of_many_chunks_follow_the_distribution(found: Found) -> None:
    logits = torch.randn(700, generator=torch.Generator().manual_seed(1)) * 2
    tokens = found(SamplingParams(), 20_000, logits)
    for token, share in enumerate(logits.softmax(0).tolist()):
        assert tokens[token] / 20_000 == pytest.approx(share, abs=0.0002)


def test_a_low_temperature_sharpens_the_distribution(found: Found) -> None:
    sharp = (LOGITS / 0.5).softmax(0)
    assert found(SamplingParams(temperature=0.5))[1] / 4000 == pytest.approx(
        float(sharp[1]), abs=0.001
    )


def test_a_temperature_near_zero_is_greedy() -> None:
    sequence = make_sequence(SamplingParams(temperature=1e-30), [])
    assert chosen(sequence) == [1]


def test_top_k_keeps_the_k_likeliest(found: Found) -> None:
    assert set(found(SamplingParams(top_k=2))) == {1, 2}
    assert set(found(SamplingParams(top_k=9))) == {0, 1, 2, 3, 4}


def test_the_likeliest_may_lie_in_as_many_chunks_and_at_the_very_end(found: Found) -> None:
    logits = torch.zeros(700)
    logits[5], logits[130], logits[699] = 9.0, 8.0, 10.0
    assert set(found(SamplingParams(top_k=3), 1000, logits)) == {5, 130, 699}
    assert set(found(SamplingParams(top_k=2), 1000, logits)) == {5, 699}
    logits[699] = 300.0
    assert set(found(SamplingParams(), 1000, logits)) == {699}


def test_top_p_keeps_the_smallest_set_that_reaches_p(found: Found) -> None:
    assert set(found(SamplingParams(top_p=float(PROBABILITIES[1]) - 0.01))) == {1}
    assert set(found(SamplingParams(top_p=float(PROBABILITIES[1]) + 0.01))) == {1, 2}


def test_top_p_after_top_k_is_a_share_of_what_top_k_left(found: Found) -> None:
    left = float(PROBABILITIES[1] / PROBABILITIES[1:3].sum())
    assert set(found(SamplingParams(top_k=2, top_p=left - 0.01))) == {1}
    assert set(found(SamplingParams(top_k=2, top_p=left + 0.01))) == {1, 2}


def test_of_equal_tokens_top_p_and_top_k_keep_only_as_many_as_are_needed(found: Found) -> None:
    flat = torch.zeros(1000)
    assert set(found(SamplingParams(top_p=0.9), 3000, flat)) == set(range(900))
    assert set(found(SamplingParams(top_k=3), 3000, flat)) == {0, 1, 2}


def test_min_p_drops_what_is_far_less_likely_than_the_best(found: Found) -> None:
    assert set(found(SamplingParams(min_p=0.3))) == {1, 2}
    assert set(found(SamplingParams(min_p=0.3, top_p=0.99))) == {1, 2}
    assert set(found(SamplingParams(min_p=1.0))) == {1}


def test_a_truncated_draw_follows_what_is_left(found: Found) -> None:
    tokens = found(SamplingParams(top_k=3))
    share = float(PROBABILITIES[1] / PROBABILITIES[1:4].sum())
    assert tokens[1] / 4000 == pytest.approx(share, abs=0.001)


def test_equal_seeds_draw_equal_tokens_and_choices_differ() -> None:
    flat = torch.zeros(1000)

    def tokens(seed: int, choice: int) -> list[int]:
        sequence = make_sequence(SamplingParams(seed=seed), [], choice=choice)
        for _ in range(5):
            sequence.append(chosen(sequence, flat)[0])
        return sequence.tokens[1:].tolist()

    assert tokens(9, 0) == tokens(9, 0)
    assert len({tuple(tokens(seed, choice)) for seed in (8, 9) for choice in (0, 1)}) == 4


def test_logit_bias_can_force_and_forbid_a_token() -> None:
    assert chosen(make_sequence(replace(GREEDY, logit_bias={4: 100.0}), [])) == [4]
    assert chosen(make_sequence(replace(GREEDY, logit_bias={1: -100.0}), [])) == [2]


def test_penalties_lower_what_was_generated_by_presence_and_by_frequency() -> None:
    presence = replace(GREEDY, presence_penalty=1.5)
    frequency = replace(GREEDY, frequency_penalty=0.6)
    assert chosen(make_sequence(presence, [1])) == [2]
    assert chosen(make_sequence(presence, [], prompt=(1,))) == [1]
    assert chosen(make_sequence(frequency, [1])) == [1]
    assert chosen(make_sequence(frequency, [1, 1])) == [2]


def test_the_repetition_penalty_divides_and_counts_the_prompt() -> None:
    divided = replace(GREEDY, repetition_penalty=1.6)
    assert chosen(make_sequence(divided, [], prompt=(1,))) == [2]
    assert chosen(make_sequence(divided, [1])) == [2]
    negative = torch.tensor([-1.0, -1.1])
    assert chosen(make_sequence(divided, [], prompt=(0,)), negative) == [1]


def test_no_end_comes_before_min_tokens() -> None:
    end = frozenset({1, 2})
    sequence = make_sequence(GREEDY, [3], min_tokens=2)
    assert chosen(sequence, end=end) == [3]
    sequence.append(3)
    assert chosen(sequence, end=end) == [1]
    assert chosen(make_sequence(GREEDY, [3], min_tokens=2, ignore_eos=True), end=end) == [1]


def test_rows_behind_drafts_count_the_drafts_before_them() -> None:
    sequence = make_sequence(replace(GREEDY, frequency_penalty=0.6), [1])
    sequence.guess([1, 2])
    assert chosen(sequence) == [1, 2, 1]
    short = make_sequence(GREEDY, [], min_tokens=2)
    short.guess([0, 0])
    assert chosen(short, end=frozenset({1})) == [2, 2, 1]


def test_what_is_drawn_behind_a_draft_is_what_will_be_drawn_after_it() -> None:
    flat = torch.zeros(1000)
    params = SamplingParams(seed=4, top_p=0.9)
    ahead = make_sequence(params, [])
    ahead.guess([5, 6])
    expected = []
    step = make_sequence(params, [])
    for token in (5, 6, 7):
        expected += chosen(step, flat)
        step.append(token)
    assert chosen(ahead, flat) == expected


def test_the_step_s_logits_are_left_as_they_are() -> None:
    step = StepLogits.of(LOGITS.repeat(2, 1))
    before = step.logits.clone()
    for params in (
        SamplingParams(logit_bias={0: 5.0}, presence_penalty=1.0, temperature=0.5),
        replace(GREEDY, repetition_penalty=2.0),
    ):
        choose(step, [LogitRows(make_sequence(params, [1]), 1, 1)], NO_END)
    assert torch.equal(step.logits, before)


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from((0.0, 0.3, 1.0, 1.7)),
    top_p=st.sampled_from((1.0, 0.95, 0.4)),
    top_k=st.sampled_from((0, 0, 1, 7, 40)),
    min_p=st.sampled_from((0.0, 0.0, 0.1)),
    presence_penalty=st.sampled_from((0.0, 0.0, 1.0)),
    repetition_penalty=st.sampled_from((1.0, 1.0, 1.4)),
    logit_bias=st.sampled_from(({}, {3: 4.0, 5: -2.0})),
    seed=st.integers(0, 5),
)


@settings(max_examples=40)
@given(st.lists(PARAMS, min_size=2, max_size=9), st.integers(0, 1000), st.sampled_from((30, 700)))
def test_a_row_s_token_does_not_depend_on_its_company(
    params: list[SamplingParams], seed: int, vocabulary: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(params), vocabulary, generator=chance) * 3
    # Ties are where company could show.
    logits = (logits * 4).round() / 4

    def sequences() -> list[Sequence]:
        return [make_sequence(item, [3, 4], prompt=(3, 9)) for item in params]

    step = StepLogits.of(logits)
    together = choose(
        step, [LogitRows(item, row, 1) for row, item in enumerate(sequences())], NO_END
    )
    for row, sequence in enumerate(sequences()):
        alone = choose(StepLogits.of(logits[row : row + 1]), [LogitRows(sequence, 0, 1)], NO_END)
        assert alone[0] == together[row]


def test_logprobs_are_the_model_s_own() -> None:
    found = token_logprobs(LOGITS.unsqueeze(0), [0], [2])[0]
    assert found.logprob == pytest.approx(float(LOGITS.log_softmax(0)[0]))
    assert [token for token, _ in found.top] == [1, 2]


def test_logprobs_of_many_rows_are_those_of_each_row() -> None:
    logits = torch.randn(150, 31, generator=torch.Generator().manual_seed(0))
    tokens = [row % 31 for row in range(150)]
    tops = [row % 4 for row in range(150)]
    found = token_logprobs(logits, tokens, tops)
    for row, token in enumerate(tokens):
        assert found[row].logprob == pytest.approx(float(logits[row].log_softmax(0)[token]))
        assert len(found[row].top) == tops[row]
        assert found[row] == token_logprobs(logits[row : row + 1], [token], [tops[row]])[0]


@pytest.mark.parametrize("temperature", [1.0, 0.2, 3.0])
def test_the_kernels_find_the_shares_that_torch_finds(temperature: float) -> None:
    wide = torch.randn(5, 900, generator=torch.Generator().manual_seed(2)) * 4
    wide[1, 7] = -np.inf
    logits, places = wide[:, :700], [4, 1, 1]
    theirs = TorchShares(logits, places, [temperature] * 3)
    ours = native.NativeShares(native.Threads(2), logits, places, [temperature] * 3)
    assert ours.sums.shape == theirs.sums.shape == (3, -(-700 // CHUNK))
    assert np.allclose(ours.sums, theirs.sums, rtol=1e-5, atol=1e-9)
    assert np.allclose(ours.highest, theirs.highest, rtol=1e-5, atol=1e-9)
    rows, chunks = np.array([0, 1, 2, 2]), np.array([3, 0, 0, 10])
    found = ours.inside(rows, chunks)
    assert np.allclose(found, theirs.inside(rows, chunks), rtol=1e-5, atol=1e-9)
    assert found[1, 7] == 0
    assert not found[3, 700 % CHUNK :].any()
    assert (found.max(axis=1) == ours.highest[rows, chunks]).all()
