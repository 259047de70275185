"""Which replica answers."""

from __future__ import annotations

import pytest

from tidegate_controlplane.domain.routing import Candidate, OutputMean, choose, slots


def test_without_candidates_nobody_is_chosen() -> None:
    assert choose([]) is None


def test_the_replica_with_the_least_work_in_tokens_answers() -> None:
    found = [Candidate("a", 3000, 4), Candidate("b", 1000, 4), Candidate("c", 2000, 4)]
    assert choose(found) == "b"


def test_work_is_reckoned_against_the_capacity_of_each() -> None:
    assert choose([Candidate("small", 200, 4), Candidate("large", 300, 16)]) == "large"


def test_equal_work_goes_to_the_smaller_id_in_any_order() -> None:
    pair = [Candidate("a", 100, 2), Candidate("b", 200, 4)]
    assert choose(pair) == choose(pair[::-1]) == "a"


@pytest.mark.parametrize(("saved", "chosen"), [(1001, "affine"), (999, "idle")])
def test_a_cached_prompt_is_followed_as_long_as_it_saves_more_than_there_is_more_to_do(
    saved: int, chosen: str
) -> None:
    assert choose([Candidate("idle", 500, 4), Candidate("affine", 1500, 4, saved)]) == chosen


def test_a_replica_is_sent_a_little_more_than_it_runs() -> None:
    assert [slots(capacity) for capacity in (1, 4, 16)] == [2, 5, 20]


def test_expected_output_is_learned_and_bounded_by_the_caller() -> None:
    mean = OutputMean(100.0)
    assert mean.expected_tokens(None) == mean.expected_tokens(500) == 100
    assert mean.expected_tokens(16) == 16
    for _ in range(200):
        mean = mean.after(20)
    assert mean.expected_tokens(None) == 20
