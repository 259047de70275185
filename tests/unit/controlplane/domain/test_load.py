"""From counters to rates: noise is no rush, and a rush is seen at once."""

from __future__ import annotations

from random import Random

import pytest

from tidegate_controlplane.domain.load import LoadWindow, Reading


def fed(*rates: tuple[float, int], tokens: int = 100) -> LoadWindow:
    """A window after so many seconds at each rate, in equal steps."""
    window, now_s, arrived = LoadWindow(), 0.0, 0.0
    window.see(Reading(0.0, 0, 1))
    for rate, seconds in rates:
        for _ in range(seconds):
            now_s, arrived = now_s + 1, arrived + rate
            window.see(Reading(now_s, 1, 1, round(arrived), round(arrived) * tokens, arrived))
    return window


def test_a_steady_rate_is_its_own_mean() -> None:
    assert fed((4, 300)).arrivals_per_s == pytest.approx(4)


def test_nothing_asked_is_no_rate() -> None:
    assert LoadWindow().arrivals_per_s == 0.0
    assert fed((0, 60)).arrivals_per_s == 0.0


def test_a_rush_is_seen_within_three_seconds() -> None:
    assert fed((1, 300), (10, 3)).arrivals_per_s == pytest.approx(10)


def test_a_rush_out_of_silence_is_seen_within_three_seconds() -> None:
    assert fed((0, 300), (6, 3)).arrivals_per_s == pytest.approx(6)


def test_the_end_of_a_rush_is_seen_within_a_minute() -> None:
    assert fed((10, 300), (2, 60)).arrivals_per_s == pytest.approx(2, rel=0.2)


def test_independent_arrivals_hardly_ever_look_like_a_rush() -> None:
    rng, window, arrived, seen = Random(7), LoadWindow(), 0, []
    for now_s in range(3600):
        arrived += sum(rng.random() < 0.2 for _ in range(10))
        window.see(Reading(float(now_s), 1, 1, arrived))
        seen.append(window.arrivals_per_s)
    rushes = sum(rate > 3.0 for rate in seen[300:])
    assert rushes < 30


def test_counters_that_fell_have_begun_anew() -> None:
    window = fed((4, 100))
    window.see(Reading(101.0, 0, 1, 2, 200))
    assert window.arrivals_per_s == 0.0
    assert len(window.readings) == 1


def test_tokens_of_a_request_follow_what_is_asked_now() -> None:
    assert fed((2, 100), tokens=700).tokens_per_request == pytest.approx(700)


def test_passes_that_come_seldom_do_not_make_the_load_vanish() -> None:
    window = LoadWindow()
    for turn in range(60):
        window.see(Reading(turn * 7.0, 1, 1, turn * 70))
        if turn > 10:
            assert window.arrivals_per_s == pytest.approx(10, rel=0.1)


def test_a_stretch_tells_what_one_of_several_replicas_did() -> None:
    window = LoadWindow()
    readings = [
        Reading(float(second), 12, 3, second, second, 90.0 * second) for second in range(31)
    ]
    (sample,) = filter(None, map(window.see, readings))
    assert (sample.seconds, sample.in_flight, sample.tokens) == (30.0, 4.0, 900.0)


def test_a_stretch_without_a_ready_replica_teaches_nothing() -> None:
    window = LoadWindow()
    assert not any(window.see(Reading(float(s), 0, 0, s)) for s in range(60))


def test_the_window_is_bounded_however_often_it_is_looked_at() -> None:
    window = LoadWindow()
    for tick in range(20_000):
        window.see(Reading(tick / 10, 1, 1, tick))
    assert len(window.readings) <= 302
