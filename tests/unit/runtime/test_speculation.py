import asyncio
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.engines import GREEDY, Steps, make_engine, tokens_of
from tests.unit.runtime.fake_decoder import FakeDecoder

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.model_runner import LogitRows
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceId, SequenceRequest
from tidegate_runtime.models.base import StepLogits
from tidegate_runtime.sampling.sampler import choose
from tidegate_runtime.speculation.base import MAX_DRAFTS, Reach
from tidegate_runtime.speculation.depth import Acceptance, StepTimes, plan
from tidegate_runtime.speculation.draft_model import DraftModelProposer
from tidegate_runtime.speculation.ngram import NgramProposer
from tidegate_runtime.speculation.speculator import Speculator
from tidegate_runtime.speculation.verify import verified


def make_sequence(*prompt: int, max_tokens: int = 500, **options: Any) -> Sequence:
    return Sequence.start(SequenceId(1), SequenceRequest(prompt, max_tokens, **options))


# --- verification ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "drafts", "tokens"),
    [
        ([4], [], [4]),
        ([4, 5], [4], [4, 5]),
        ([4, 5], [9], [4]),
        ([4, 5, 6, 7], [4, 5, 6], [4, 5, 6, 7]),
        ([4, 5, 6, 7], [4, 9, 6], [4, 5]),
        ([4, 5], [4, 5, 6], [4, 5]),
    ],
)
def test_tokens_are_taken_up_to_the_first_that_was_not_guessed(
    chosen: list[int], drafts: list[int], tokens: list[int]
) -> None:
    assert verified(chosen, drafts) == tokens


@pytest.mark.parametrize(
    ("params", "drafts"),
    [
        (SamplingParams(), [0, 0]),
        (SamplingParams(temperature=0.7, top_p=0.8), [3, 1]),
        (SamplingParams(top_k=4, presence_penalty=1.0), [6, 6]),
    ],
)
def test_sampled_tokens_follow_the_model_s_distribution_whatever_is_guessed(
    params: SamplingParams, drafts: list[int]
) -> None:
    """Pearson's chi-square over pairs of tokens, with and without guesses (64 cells)."""
    after = torch.randn(8, 8, generator=torch.Generator().manual_seed(5)) * 1.5

    def pair(seed: int, guesses: list[int]) -> tuple[int, int]:
        sequence = make_sequence(7, max_tokens=9, sampling=params)
        sequence.random.seed(seed)
        while sequence.output_tokens < 2:
            sequence.guess(guesses[sequence.output_tokens :])
            rows = torch.tensor([int(sequence.tokens[-1]), *sequence.draft_tokens])
            asked = [LogitRows(sequence, 0, len(rows))]
            tokens = choose(StepLogits.of(after[rows]), asked, frozenset())[0]
            for token in verified(tokens, sequence.draft_tokens)[: 2 - sequence.output_tokens]:
                sequence.append(token)
            sequence.drafts = 0
        first, second = sequence.tokens[1:].tolist()
        return first, second

    count = 600
    plain = Counter(pair(seed, []) for seed in range(count))
    guessed = Counter(pair(seed, drafts) for seed in range(count, 2 * count))
    cells = set(plain) | set(guessed)
    statistic = sum((plain[c] - guessed[c]) ** 2 / (plain[c] + guessed[c]) for c in cells)
    # The mean of chi-square is its degrees of freedom, its deviation sqrt(2 · freedom).
    freedom = len(cells) - 1
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5
    assert [pair(seed, drafts) for seed in range(99)] == [pair(seed, []) for seed in range(99)]


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    habit=st.sampled_from((0.0, 0.5, 0.9, 1.0)),
    vocabulary=st.integers(2, 40),
    prompt=st.lists(st.integers(1, 1), min_size=1, max_size=40),
    temperature=st.sampled_from((0.0, 0.0, 0.8)),
    drafting=st.sampled_from(("n-grams", "same model", "other model")),
)
def test_any_model_gives_the_same_tokens_with_and_without(
    seed: int, habit: float, vocabulary: int, prompt: list[int], temperature: float, drafting: str
) -> None:
    params = SamplingParams(temperature=temperature, seed=seed, frequency_penalty=0.1 * (seed % 2))
    asked = SequenceRequest(tuple(prompt), 60, params)

    async def run(**options: Any) -> list[int | None]:
        engine = make_engine(FakeDecoder(vocabulary, habit, seed), **options)
        try:
            return await tokens_of(engine, asked)
        finally:
            await asyncio.to_thread(engine.stop, "done")

    proposer: Any = NgramProposer()
    if drafting != "n-grams":
        small = FakeDecoder(vocabulary, habit, seed if drafting == "same model" else seed + 1)
        small.allocate(64)
        proposer = DraftModelProposer(small, BlockManager(64))
    steps = Steps()
    expected = asyncio.run(run())
    assert asyncio.run(run(proposer=proposer, eager=True, observer=steps)) == expected
    if drafting == "same model" and temperature == 0.0:
        assert steps.total.accepted_tokens > 0


# --- n-grams --------------------------------------------------------------------------------------


def guess(proposer: NgramProposer, sequence: Sequence, count: int = 6) -> list[int]:
    if not proposer.reach(sequence).tokens:
        return []
    return proposer.propose({sequence: count})[sequence]


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    assert guess(NgramProposer(), make_sequence(1, 2, 3, 4, 5, 6, 9, 2, 3)) == [4, 5, 6, 9, 2, 3]


def test_nothing_is_guessed_where_nothing_repeats() -> None:
    assert guess(NgramProposer(), make_sequence(*range(50))) == []
    assert guess(NgramProposer(), make_sequence(1)) == []


def test_a_text_that_circles_is_guessed_to_circle_on() -> None:
    assert guess(NgramProposer(), make_sequence(9, 1, 2, 1, 2, 1, 2)) == [1, 2, 1, 2, 1, 2]


def test_three_tokens_decide_before_two_and_the_latest_place_counts() -> None:
    assert guess(NgramProposer(), make_sequence(1, 2, 3, 7, 8, 2, 3, 9, 8, 1, 2, 3), 1) == [7]
    assert guess(NgramProposer(), make_sequence(5, 2, 3, 7, 6, 2, 3, 9, 8, 2, 3), 1) == [9]


def test_the_place_that_is_being_copied_is_kept_while_it_agrees_most() -> None:
    sequence = make_sequence(1, 2, 3, 4, 5, 6, 7, 9, 4, 5, 6, 8, 1, 2, 3)
    proposer = NgramProposer()
    assert guess(proposer, sequence, 2) == [4, 5]
    for token in (4, 5, 6):
        sequence.append(token)
    # 4 5 6 was seen later before 8, but 1 2 3 4 5 6 was followed by 7.
    assert guess(proposer, sequence, 1) == [7]


def test_longer_agreement_is_a_surer_kind() -> None:
    proposer = NgramProposer()
    text = list(range(40))
    kinds = [
        NgramProposer().reach(make_sequence(*text, 99, *text[5 : 5 + count])).kind
        for count in (2, 4, 8, 16, 32)
    ]
    assert kinds == [0, 1, 2, 3, 4]
    assert proposer.reach(make_sequence(*text, 99, 5, 6)) == Reach(MAX_DRAFTS, 0)


@settings(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 100), st.integers(1, 8), st.integers())
def test_growing_by_any_steps_finds_the_same_as_starting_over(
    length: int, step: int, vocabulary: int, seed: int
) -> None:
    tokens = random.Random(seed).choices(range(vocabulary), k=length)
    grown = make_sequence(tokens[0])
    proposer = NgramProposer()
    found = proposer.reach(grown).tokens
    for start in range(1, len(tokens), step):
        for token in tokens[start : start + step]:
            grown.append(token)
        found = proposer.reach(grown).tokens
    fresh = NgramProposer()
    assert found == fresh.reach(make_sequence(*tokens)).tokens
    ours, theirs = proposer._histories[grown], next(iter(fresh._histories.values()))
    assert ours._followed == theirs._followed


def test_what_a_sequence_left_behind_is_dropped() -> None:
    proposer = NgramProposer()
    sequence = make_sequence(1, 2, 1, 2)
    proposer.reach(sequence)
    proposer.forget(sequence)
    proposer.forget(sequence)
    assert not proposer._histories


# --- the draft model ------------------------------------------------------------------------------


def test_a_draft_model_runs_each_token_once_and_leaves_no_block() -> None:
    small = FakeDecoder(habit=0.9)
    small.allocate(32)
    blocks = BlockManager(32)
    proposer = DraftModelProposer(small, blocks)
    sequences = [make_sequence(*range(1, 20)), make_sequence(*range(5, 9))]
    drafts = proposer.propose({sequences[0]: 4, sequences[1]: 2})
    assert {s: len(tokens) for s, tokens in drafts.items()} == {sequences[0]: 4, sequences[1]: 2}
    assert small.rows == [19 + 4, 2, 1, 1]
    for token in (*drafts[sequences[0]][:2], 28):
        sequences[0].append(token)
    small.rows.clear()
    proposer.propose({sequences[0]: 1})
    assert small.rows == [1]
    for sequence in sequences:
        proposer.forget(sequence)
    assert blocks.used_blocks == 0


def test_a_sequence_beyond_the_context_of_the_draft_model_is_not_guessed_for() -> None:
    small = FakeDecoder(habit=0.9)
    small.allocate(32)
    proposer = DraftModelProposer(small, BlockManager(32), 4, context_tokens=10)
    reaches = [proposer.reach(make_sequence(*range(1, 1 + n))).tokens for n in (3, 8, 10, 12)]
    assert reaches == [4, 2, 0, 0]
    assert DraftModelProposer(small, BlockManager(32), 4).reach(make_sequence(*range(1, 20))).tokens


def test_guesses_end_before_what_is_no_token_of_the_model() -> None:
    def guesses(vocabulary_size: int | None) -> list[int]:
        small = FakeDecoder(habit=0.9)
        small.allocate(32)
        proposer = DraftModelProposer(small, BlockManager(32), vocabulary_size=vocabulary_size)
        return proposer.propose({sequence: 6})[sequence]

    sequence = make_sequence(*range(1, 20))
    every = guesses(None)
    largest = max(every)
    assert guesses(largest + 1) == every
    assert guesses(largest) == every[: every.index(largest)]


def test_a_sequence_with_a_token_that_the_draft_model_lacks_is_not_guessed_for() -> None:
    small = FakeDecoder(habit=0.9)
    small.allocate(32)
    blocks = BlockManager(32)
    proposer = DraftModelProposer(small, blocks)
    known, strange = make_sequence(*range(1, 9)), make_sequence(1, 2, small.vocabulary_size)
    assert set(proposer.propose({strange: 2, known: 2})) == {known}
    assert proposer.reach(strange).tokens == 0
    assert proposer.reach(known).tokens
    proposer.forget(known)
    assert blocks.used_blocks == 0, "what will not be guessed for keeps no block"
    proposer.forget(strange)


@pytest.mark.parametrize("right", [0, 1, 3, 6])
def test_guesses_that_did_not_come_true_leave_no_trace(right: int) -> None:
    def proposer() -> DraftModelProposer:
        small = FakeDecoder(habit=0.3)
        small.allocate(32)
        return DraftModelProposer(small, BlockManager(32))

    used, sequence = proposer(), make_sequence(*range(1, 20))
    drafts = used.propose({sequence: 6})[sequence]
    # Nothing was proposed for a while: what is known ends at the first wrong guess.
    for token in (*drafts[:right], (drafts[min(right, 5)] + 1) % 29, 7, 8, 9, 7):
        sequence.append(token)
    assert used.propose({sequence: 6}) == proposer().propose({sequence: 6})


# --- depth ----------------------------------------------------------------------------------------


def times(**seconds: float) -> StepTimes:
    made = StepTimes()
    for rows, value in seconds.items():
        made.add(int(rows.removeprefix("r")), value)
    return made


def test_costs_between_measurements_are_interpolated_and_never_fall() -> None:
    known = times(r1=1.0, r5=2.0, r9=1.5)
    assert known.of([1, 3, 5, 9, 20]).tolist() == [1.0, 1.5, 2.0, 2.0, 2.0]
    assert StepTimes().of([1, 2]).tolist() == [1.0, 1.0]


def test_a_measurement_that_was_not_repeated_for_long_is_forgotten() -> None:
    known = times(r16=99.0)
    for _ in range(3000):
        known.add(1, 1.0)
    assert known.of([16]).tolist() == [1.0]


def test_free_rows_are_used_to_the_full_and_dear_ones_not_at_all() -> None:
    assert plan([0.9], [8], 1, times(r1=1.0, r9=1.0), 0.0) == [8]
    assert plan([0.9], [8], 1, times(r1=1.0, r9=9.0), 0.0) == [0]


def test_depth_grows_with_acceptance() -> None:
    cost = times(r1=1.0, r16=2.0)
    depths = [plan([rate], [15], 1, cost, 0.0)[0] for rate in (0.05, 0.5, 0.8, 0.95)]
    assert depths == sorted(depths)
    assert depths[0] == 0
    assert depths[-1] > depths[1] > 0


def test_the_surer_sequence_is_given_more() -> None:
    first, second = plan([0.95, 0.3], [15, 15], 2, times(r2=1.0, r32=3.0), 0.0)
    assert first > second


def test_the_cost_of_making_guesses_counts() -> None:
    cost = times(r1=1.0, r16=1.2)
    assert plan([0.8], [15], 1, cost, 0.0)[0] > plan([0.8], [15], 1, cost, 0.2)[0] > 0
    assert plan([0.8], [15], 1, cost, 2.0) == [0]


def test_guesses_that_are_made_at_once_cost_the_same_at_any_depth() -> None:
    cost = times(r1=1.0, r16=1.2)
    one_by_one = plan([0.9], [15], 1, cost, 0.1)[0]
    assert plan([0.9], [15], 1, cost, 0.1, at_once=True)[0] > one_by_one > 0
    assert plan([0.9], [15], 1, cost, 9.0, at_once=True) == [0]


def test_a_plan_never_goes_far_beyond_what_was_measured() -> None:
    assert sum(plan([0.9] * 32, [15] * 32, 32, times(r32=1.0), 0.0)) == 32


@given(
    st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(1, 15)), min_size=1, max_size=20),
    st.lists(st.floats(0.001, 1.0), min_size=3, max_size=3),
)
def test_a_plan_keeps_to_the_limits(guesses: list[tuple[float, int]], costs: list[float]) -> None:
    rates, limits = zip(*guesses, strict=True)
    cost = times(r1=costs[0], r20=costs[1], r300=costs[2])
    depths = plan(rates, limits, len(guesses) + 2, cost, 0.0)
    assert len(depths) == len(guesses)
    assert all(0 <= depth <= limit for depth, limit in zip(depths, limits, strict=True))


def test_acceptance_is_learnt_per_sequence_and_begins_with_that_of_its_kind() -> None:
    seen = Acceptance()
    assert seen.rate(1, 0) == 0.5
    for _ in range(10):
        seen.learn(1, 0, 4, 4)
        seen.learn(2, 0, 4, 0)
    assert seen.rate(1, 0) > 0.85
    assert seen.rate(2, 0) < 0.3
    assert 0.5 < seen.rate(3, 0) < 0.95
    assert seen.rate(3, 1) == 0.5
    seen.forget(1)
    assert seen.rate(1, 0) == seen.rate(3, 0)


class Parrot:
    """Can always guess, and counts how often it is asked to."""

    asked = 0
    at_once = False

    def reach(self, sequence: Sequence) -> Reach:
        return Reach(4)

    def propose(self, wanted: Any) -> dict[Sequence, list[int]]:
        self.asked += 1
        return {sequence: [1] * count for sequence, count in wanted.items()}

    def forget(self, sequence: Sequence) -> None:
        pass


def drafted(right: int, cost: StepTimes, steps: int = 400) -> list[int]:
    """How many guesses each step ran, of a parrot whose first `right` guesses come true."""
    speculator = Speculator(Parrot(), clock=lambda: 0.0)
    speculator._times = cost
    sequence = make_sequence(1, max_tokens=9000)
    made = []
    for _ in range(steps):
        speculator.draft([sequence])
        made.append(sequence.drafts)
        if sequence.drafts:
            speculator.learn(sequence, sequence.drafts, min(right, sequence.drafts))
        sequence.drafts = 0
    return made


def test_guesses_that_never_come_true_stop_but_for_a_probe_now_and_then() -> None:
    made = drafted(0, times(r1=1.0, r5=1.5))
    assert sum(made[50:]) <= 6
    assert sum(made[50:]) >= 1


def test_guesses_that_come_true_go_on() -> None:
    assert min(drafted(4, times(r1=1.0, r5=1.2))[1:]) == 4


def test_rows_that_cost_as_much_as_steps_are_not_used() -> None:
    assert sum(drafted(4, times(r1=1.0, r5=5.0))[20:]) <= 8


def test_a_sequence_is_never_guessed_beyond_its_last_token() -> None:
    speculator = Speculator(Parrot(), clock=lambda: 0.0)
    for room, most in ((1, 0), (2, 1), (4, 3), (30, 4)):
        sequence = make_sequence(1, max_tokens=room)
        speculator.draft([sequence])
        assert sequence.drafts == most


async def test_speculation_saves_steps_on_a_text_that_repeats() -> None:
    def steps_of(proposer: Any) -> tuple[FakeDecoder, Any]:
        decoder = FakeDecoder(habit=1.0)
        return decoder, make_engine(decoder, proposer=proposer, eager=True)

    counts = []
    for proposer in (None, NgramProposer()):
        decoder, engine = steps_of(proposer)
        await tokens_of(engine, SequenceRequest(tuple(range(1, 20)), 200, GREEDY))
        counts.append(decoder.steps)
        await asyncio.to_thread(engine.stop, "done")
    assert counts[0] == 200
    assert counts[1] < 60
