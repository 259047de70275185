"""The policies that this platform is compared with do what theirs are documented to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tidegate_controlplane.simulate.policies.base import Mean, Observed, Policy
from tidegate_controlplane.simulate.policies.knative_kpa import KnativeKpa
from tidegate_controlplane.simulate.policies.ray_serve import RayServe
from tidegate_controlplane.simulate.policies.sagemaker import SageMaker

Answers = Callable[[float], int]


def drive(
    policy: Policy, load: Callable[[float], float], seconds: float, *, ready: int = 1
) -> Answers:
    """Ask for so long, replicas being ready at once; the answer at each moment."""
    seen = Observed(slots=10, cold_start_s=0.0, ready=ready, desired=ready)
    answers: list[tuple[float, int]] = []
    while seen.now_s <= seconds:
        answers.append((seen.now_s, policy.desired(seen)))
        seen.ready = seen.desired = answers[-1][1]
        concurrency = load(seen.now_s)
        seen.request_s += concurrency * policy.interval_s
        seen.arrivals += round(concurrency * policy.interval_s)
        seen.held = 0 if seen.ready else round(concurrency)
        seen.now_s += policy.interval_s
    return lambda at_s: [count for when, count in answers if when <= at_s][-1]


# --- Knative --------------------------------------------------------------------------------------


def test_kpa_in_stable_mode_divides_the_mean_over_a_minute_by_70_percent_of_the_slots() -> None:
    at = drive(KnativeKpa(), lambda _s: 13.9, 300)
    assert at(200) == 2
    assert drive(KnativeKpa(), lambda _s: 14.1, 300)(200) == 3


def test_kpa_panics_at_twice_the_ready_capacity_and_follows_six_seconds() -> None:
    at = drive(KnativeKpa(), lambda s: 7 if s < 120 else 70, 400)
    assert at(118) == 1
    # Six seconds of the surge are enough for all of it, where the mean over a minute is 15.
    assert at(128) == 10


def test_kpa_does_not_scale_down_while_it_panics() -> None:
    at = drive(KnativeKpa(), lambda s: 70 if 120 <= s < 130 else 7, 400)
    assert at(132) == at(180) == 10
    assert at(300) == 1


def test_kpa_goes_down_by_half_at_most() -> None:
    seen = Observed(slots=10, cold_start_s=0.0, now_s=100.0, ready=10, request_s=1.0)
    assert KnativeKpa().desired(seen) == 5


def test_kpa_without_traffic_goes_to_zero_after_a_stable_window() -> None:
    at = drive(KnativeKpa(), lambda s: 3 if s < 100 else 0, 400)
    assert at(158) == 1
    assert at(162) == 0


def test_kpa_waits_for_the_grace_period_where_the_activator_was_out_of_the_path() -> None:
    policy = KnativeKpa()
    seen = Observed(slots=300, cold_start_s=0.0, now_s=100.0, ready=1)
    assert policy.desired(seen) == 1
    seen.now_s = 129.0
    assert policy.desired(seen) == 1
    seen.now_s = 130.0
    assert policy.desired(seen) == 0


def test_kpa_at_zero_starts_one_for_the_first_request() -> None:
    seen = Observed(slots=10, cold_start_s=0.0, held=30)
    assert KnativeKpa().desired(seen) == 1


# --- Ray Serve ------------------------------------------------------------------------------------


def test_ray_goes_up_after_thirty_seconds_above_the_target() -> None:
    at = drive(RayServe(), lambda s: 4 if s < 100 else 40, 400)
    assert at(99) == 1
    assert at(125) == 1
    assert at(140) > 1
    assert at(250) == 5


def test_ray_goes_down_after_ten_minutes_below_it() -> None:
    at = drive(RayServe(), lambda s: 40 if s < 100 else 4, 1000, ready=5)
    assert at(690) == 5
    assert at(740) == 1


def test_ray_forgets_a_delay_when_the_load_comes_back() -> None:
    at = drive(RayServe(), lambda s: 40 if int(s) % 500 < 100 else 4, 2000, ready=5)
    assert at(2000) == 5


def test_ray_goes_to_zero_only_from_one() -> None:
    at = drive(RayServe(), lambda _s: 0, 1400, ready=3)
    assert at(620) == 1
    assert at(1300) == 0


def test_ray_at_zero_starts_one_at_once() -> None:
    seen = Observed(slots=10, cold_start_s=0.0, held=30)
    assert RayServe().desired(seen) == 1


# --- SageMaker ------------------------------------------------------------------------------------


def test_sagemaker_goes_out_after_three_minutes_above_half_of_what_one_can_take() -> None:
    at = drive(SageMaker(per_minute=60.0), lambda s: 0.25 if s < 600 else 2, 1200)
    assert at(600) == 1
    assert at(720) == 1
    assert at(780) == 4


def test_sagemaker_goes_in_after_fifteen_minutes_and_keeps_one() -> None:
    at = drive(SageMaker(per_minute=60.0), lambda s: 2 if s < 600 else 0, 3000, ready=4)
    assert at(1440) == 4
    assert at(1560) == 1
    assert at(3000) == 1


def test_sagemaker_waits_five_minutes_between_two_steps() -> None:
    at = drive(SageMaker(per_minute=60.0), lambda s: 2 if s < 190 else 6, 1200)
    assert at(120) == 1
    assert at(180) == at(420) == 4
    assert at(480) == 12


# --- means ----------------------------------------------------------------------------------------


def test_a_mean_is_that_of_its_window_or_of_the_time_since_the_start() -> None:
    mean = Mean(60.0)
    for second in range(1, 101):
        mean.see(float(second), min(second, 50) * 2.0)
    assert mean.over(10.0) == 0.0
    assert mean.over(60.0) == pytest.approx(10 * 2 / 60)
    assert Mean(60.0).over(60.0) == 0.0
