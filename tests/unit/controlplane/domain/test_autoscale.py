"""How many replicas the signals call for, and which consideration decided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.domain.autoscale import Bounds, Decision, Signals, Term, decide


def decided(
    *, low: int = 0, high: int = 4, target: int = 4, idle_timeout_s: float = 60.0, **signals: Any
) -> Decision:
    quiet: dict[str, Any] = {"in_flight": 0, "held": 0, "queued": 0, "idle_s": None, "replicas": 0}
    return decide(Bounds(low, high, target, idle_timeout_s), Signals(**quiet | signals))


def outcome(decision: Decision) -> tuple[int, Term]:
    return decision.desired, decision.term


@pytest.mark.parametrize("kind", ["in_flight", "held", "queued"])
def test_a_single_request_calls_for_a_replica_at_zero(kind: str) -> None:
    assert outcome(decided(**{kind: 1, "idle_s": 0.0})) == (1, Term.WORK)


def test_work_is_all_that_is_in_flight_held_and_queued_shared_by_the_target() -> None:
    assert outcome(decided(in_flight=3, held=3, queued=3, idle_s=0.0)) == (3, Term.WORK)
    assert outcome(decided(in_flight=4, held=4, idle_s=0.0)) == (2, Term.WORK)


def test_work_beyond_the_maximum_gets_the_maximum() -> None:
    assert outcome(decided(held=100, idle_s=0.0)) == (4, Term.MAXIMUM)


def test_the_minimum_stands_without_any_work() -> None:
    assert outcome(decided(low=2, idle_s=None)) == (2, Term.MINIMUM)
    assert outcome(decided(low=2, in_flight=1, idle_s=0.0)) == (2, Term.MINIMUM)


def test_a_deployment_without_any_activity_yet_stays_at_zero() -> None:
    assert outcome(decided(idle_s=None)) == (0, Term.IDLE)


def test_one_replica_stays_through_the_idle_time() -> None:
    assert outcome(decided(idle_s=59.9, replicas=1)) == (1, Term.IDLE_GRACE)


def test_zero_comes_when_the_idle_time_has_passed() -> None:
    assert outcome(decided(idle_s=60.0, replicas=1)) == (0, Term.IDLE)


def test_zero_never_comes_while_something_is_in_flight_however_long_it_takes() -> None:
    assert decided(in_flight=1, idle_s=10_000.0, replicas=1).desired == 1


def test_an_idle_timeout_of_zero_scales_down_at_once() -> None:
    assert outcome(decided(idle_timeout_s=0.0, idle_s=0.0, replicas=1)) == (0, Term.IDLE)


def test_the_recent_peak_keeps_the_replicas_that_it_called_for() -> None:
    assert outcome(decided(in_flight=1, idle_s=0.0, replicas=3, recent_peak=3)) == (
        3,
        Term.RECENT_PEAK,
    )
    assert outcome(decided(idle_s=5.0, replicas=3, recent_peak=3)) == (3, Term.RECENT_PEAK)


def test_the_recent_peak_never_calls_for_new_replicas() -> None:
    assert decided(in_flight=1, idle_s=0.0, replicas=1, recent_peak=4).desired == 1
    assert decided(in_flight=1, idle_s=0.0, replicas=2, recent_peak=4).desired == 2


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        ({"held": 5, "idle_s": 0.0}, "2 replicas: 0 in flight, 5 held, 0 queued"),
        ({"held": 1, "idle_s": 0.0}, "1 replica: 0 in flight, 1 held, 0 queued"),
        ({"idle_s": 12.4}, "1 replica: idle for 12 s, less than the idle timeout"),
        ({}, "0 replicas: nothing in flight or queued, and the idle timeout has passed"),
    ],
)
def test_a_decision_explains_itself(signals: dict[str, Any], sentence: str) -> None:
    assert decided(**signals).sentence == sentence


counts = st.integers(0, 50)


@given(
    bounds=st.builds(
        lambda low, extra, target, idle: Bounds(low, max(1, low + extra), target, idle),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(1, 8),
        st.floats(0, 100),
    ),
    signals=st.builds(
        Signals,
        in_flight=counts,
        held=counts,
        queued=counts,
        idle_s=st.none() | st.floats(0, 200),
        replicas=counts,
        recent_peak=counts,
    ),
)
def test_whatever_is_signalled_the_count_is_within_bounds_and_zero_only_without_work(
    bounds: Bounds, signals: Signals
) -> None:
    decision = decide(bounds, signals)
    assert bounds.min_replicas <= decision.desired <= bounds.max_replicas
    assert decision.sentence
    if signals.work:
        assert decision.desired >= 1
    if signals.idle_s is not None and signals.idle_s < bounds.idle_timeout_s:
        assert decision.desired >= 1
