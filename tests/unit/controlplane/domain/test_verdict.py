"""When a new revision is worse: errors with statistical weight, medians, drift."""

from __future__ import annotations

from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.resources import ComparisonView
from tidegate.spec import RollbackSpec
from tidegate_controlplane.domain.likeness import LikenessSum, Reply, alike
from tidegate_controlplane.domain.verdict import chance, judge


def judged(
    stable: dict[str, Any], new: dict[str, Any], likeness: Any = None, **bounds: Any
) -> str | None:
    seen = ComparisonView.model_validate({"stable": stable, "new": new, "likeness": likeness})
    fault = judge(RollbackSpec(**bounds), seen)
    return fault.reason if fault else None


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_the_chance_is_the_tail_of_the_hypergeometric_distribution(
    failed_new: int, answered_new: int, failed_old: int, answered_old: int
) -> None:
    n, failed = failed_new + answered_new, failed_new + failed_old
    total = n + failed_old + answered_old
    ways = [
        comb(failed, k) * comb(total - failed, n - k) for k in range(failed_new, min(failed, n) + 1)
    ]
    exact = sum(ways) / comb(total, n)
    assert chance(failed_new, n, failed_old, total - n) == pytest.approx(exact, abs=1e-9)


def test_errors_are_judged_only_from_enough_requests_on() -> None:
    assert judged({"answered": 1000}, {"failed": 19}) is None
    assert judged({"answered": 1000}, {"failed": 20}) == "ErrorRate"


def test_a_difference_within_the_bound_or_by_chance_is_no_fault() -> None:
    assert judged({"answered": 1000}, {"answered": 960, "failed": 40}) is None
    assert judged({"answered": 1000}, {"answered": 900, "failed": 100}) == "ErrorRate"
    assert judged({"answered": 20}, {"answered": 18, "failed": 2}) is None
    assert judged({"answered": 10, "failed": 10}, {"answered": 10, "failed": 10}) is None


def test_without_a_request_on_the_former_revision_the_rate_itself_is_judged() -> None:
    assert judged({}, {"answered": 18, "failed": 2}) == "ErrorRate"


@pytest.mark.parametrize(
    ("count", "median"), [("streams", "first_token_s"), ("timed", "per_token_s")]
)
def test_medians_are_compared_from_enough_samples_of_both_on(count: str, median: str) -> None:
    old, new = {count: 20, median: 0.1}, {count: 20, median: 0.21}
    assert judged(old, new) == "Latency"
    assert judged(old, {**new, median: 0.2}) is None
    assert judged({**old, count: 19}, new) is None
    assert judged(old, {**new, count: 19}) is None
    assert judged(old, new, latency_ratio=None) is None


def test_drift_is_judged_only_when_it_is_asked_for_and_over_greedy_answers() -> None:
    likeness = {"compared": 100, "greedy": 20, "agreement": 0.85}
    assert judged({}, {}, likeness) is None
    assert judged({}, {}, likeness, drift=0.1) == "Drift"
    assert judged({}, {}, likeness, drift=0.2) is None
    assert judged({}, {}, {**likeness, "greedy": 19}, drift=0.1) is None


def test_two_answers_agree_as_far_as_their_texts_begin_alike() -> None:
    pair = alike(Reply("abcdef", "stop"), Reply("abcxe", "length"))
    assert (pair.shared_prefix, pair.same_finish) == (0.5, False)
    assert pair.length_ratio == pytest.approx(5 / 6)
    assert alike(Reply("", "stop"), Reply("", "stop")).shared_prefix == 1.0


def test_sampled_answers_count_for_length_and_end_but_not_for_agreement() -> None:
    total = LikenessSum()
    assert (total.view.agreement, total.view.same_finish) == (None, None)
    total.add([Reply("ab", "stop")], [Reply("xy", "stop")], is_greedy=False)
    assert (total.view.compared, total.view.greedy, total.view.agreement) == (1, 0, None)
    total.add([Reply("ab", "stop")], [Reply("ax", "length")], is_greedy=True)
    view = total.view
    assert (view.agreement, view.same_finish, view.length_ratio) == (0.5, 0.5, 1.0)


def test_a_choice_that_is_missing_differs_wholly() -> None:
    total = LikenessSum()
    total.add([Reply("ab", "stop"), Reply("cd", "stop")], [Reply("ab", "stop")], is_greedy=True)
    assert (total.view.agreement, total.view.same_finish) == (0.5, 0.0)
