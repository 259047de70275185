"""How many replicas the signals call for, and which consideration decided."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.domain.autoscale import Bounds, Decision, Signals, Term, decide

QUIET = Signals(
    in_flight=0,
    held=0,
    queued=0,
    idle_s=None,
    ready=0,
    starting=(),
    cold_start_s=20.0,
    slots=16.0,
)
LEARNED: dict[str, Any] = {"tokens_per_request": 500.0, "tokens_per_s": 800.0}
"""One replica finishes 1.6 requests a second: one in each of 16 slots every ten seconds."""


def decided(
    *,
    low: int = 0,
    high: int = 50,
    target: int | None = None,
    idle_timeout_s: float = 60.0,
    clear_s: float = 10.0,
    scheduled: int = 0,
    **signals: Any,
) -> Decision:
    bounds = Bounds(low, high, target, idle_timeout_s, clear_s, scheduled)
    busy = {"idle_s": 0.0} if signals.keys() & {"in_flight", "held", "queued"} else {}
    return decide(bounds, replace(QUIET, **busy | signals))


def outcome(decision: Decision) -> tuple[int, Term]:
    return decision.desired, decision.term


@pytest.mark.parametrize("kind", ["in_flight", "held", "queued"])
def test_a_single_request_calls_for_a_replica_at_zero(kind: str) -> None:
    assert outcome(decided(**{kind: 1})) == (1, Term.WORK)


# --- a declared target ----------------------------------------------------------------------------


def test_with_a_declared_target_all_work_is_shared_by_it() -> None:
    assert outcome(decided(target=4, in_flight=3, held=3, queued=3)) == (3, Term.WORK)
    assert outcome(decided(target=4, in_flight=4, held=4)) == (2, Term.WORK)


def test_a_declared_target_overrides_what_was_learned() -> None:
    assert decided(target=1, in_flight=5, arrivals_per_s=0.1, **LEARNED).desired == 5


# --- arrivals -------------------------------------------------------------------------------------


def test_arrivals_call_for_slots_in_use_and_their_square_root_on_top() -> None:
    # 8 requests a second keep 80 slots busy; 1.25 · √80 more make 91.2, of 16 each.
    busy = decided(in_flight=80, ready=6, arrivals_per_s=8.0, **LEARNED)
    assert outcome(busy) == (6, Term.ARRIVALS)
    assert decided(in_flight=80, ready=6, arrivals_per_s=8.6, **LEARNED).desired == 7


def test_a_large_deployment_needs_relatively_less_headroom() -> None:
    assert decided(in_flight=800, ready=60, high=99, arrivals_per_s=80.0, **LEARNED).desired == 53


def test_a_trickle_between_two_requests_calls_for_nothing() -> None:
    assert decided(idle_s=9.0, arrivals_per_s=0.05, **LEARNED).called_for == 0


# --- backlog --------------------------------------------------------------------------------------


def test_requests_held_at_zero_are_not_given_a_replica_each() -> None:
    # Within 10 s of its start a replica fills 16 slots and finishes another 16.
    assert outcome(decided(held=32, **LEARNED)) == (1, Term.WORK)
    assert outcome(decided(held=33, **LEARNED)) == (2, Term.BACKLOG)


def test_before_anything_is_learned_a_request_is_taken_to_last_ten_seconds() -> None:
    assert decided(held=32).desired == 1
    assert decided(held=33).desired == 2


def test_what_will_arrive_during_the_cold_start_counts_from_zero() -> None:
    assert decided(held=3, arrivals_per_s=1.0, **LEARNED).desired == 2


def test_a_backlog_that_grows_while_replicas_start_calls_for_no_more_of_them() -> None:
    first = decided(held=6, arrivals_per_s=2.0, **LEARNED)
    assert first.called_for == 3
    for passed_s in range(1, 21):
        later = decided(
            held=6 + 2 * passed_s,
            arrivals_per_s=2.0,
            starting=(20.0 - passed_s,) * 3,
            kept=3,
            **LEARNED,
        )
        assert later.desired == 3, passed_s


def test_a_backlog_beyond_what_starting_replicas_take_up_calls_for_more() -> None:
    assert decided(held=65, starting=(5.0,), **LEARNED).desired == 2


def test_a_long_request_that_is_held_counts_for_several() -> None:
    assert decided(held=4, held_tokens=40 * 500, **LEARNED).desired == 2


def test_a_backlog_that_may_last_longer_takes_fewer_replicas() -> None:
    assert decided(queued=900, clear_s=600.0, **LEARNED).desired == 1
    assert decided(queued=900, clear_s=60.0, **LEARNED).desired == 9


# --- the KV cache ---------------------------------------------------------------------------------


def test_requests_that_wait_for_memory_call_for_one_more_replica() -> None:
    full = {"in_flight": 20, "ready": 2, "kv_used": 0.95, "kv_waiting": 4}
    assert outcome(decided(**full)) == (3, Term.KV_CACHE)
    assert decided(**full | {"kv_used": 0.5}).desired == 1
    assert decided(**full | {"starting": (3.0,)}).called_for == 1


# --- down -----------------------------------------------------------------------------------------


def test_what_is_worth_keeping_is_kept_and_nothing_is_started_for_it() -> None:
    assert outcome(decided(in_flight=1, ready=3, kept=3)) == (3, Term.KEPT)
    assert outcome(decided(in_flight=1, ready=2, kept=4)) == (2, Term.KEPT)
    assert outcome(decided(in_flight=1, ready=0, kept=4)) == (1, Term.WORK)


def test_a_deployment_without_any_activity_yet_stays_at_zero() -> None:
    assert outcome(decided(idle_s=None)) == (0, Term.IDLE)


def test_one_replica_stays_through_the_idle_time() -> None:
    assert outcome(decided(idle_s=59.9, ready=1)) == (1, Term.IDLE_GRACE)


def test_zero_comes_when_the_idle_time_has_passed() -> None:
    assert outcome(decided(idle_s=60.0, ready=1, kept=1)) == (0, Term.IDLE)


def test_zero_never_comes_while_something_is_in_flight_however_long_it_takes() -> None:
    assert decided(in_flight=1, idle_s=10_000.0, ready=1).desired == 1


def test_an_idle_timeout_of_zero_scales_down_at_once() -> None:
    assert outcome(decided(idle_timeout_s=0.0, idle_s=0.0, ready=1)) == (0, Term.IDLE)


# --- bounds ---------------------------------------------------------------------------------------


def test_work_beyond_the_maximum_gets_the_maximum() -> None:
    assert outcome(decided(high=4, held=1000)) == (4, Term.MAXIMUM)


def test_the_minimum_stands_without_any_work() -> None:
    assert outcome(decided(low=2, idle_s=None)) == (2, Term.MINIMUM)
    assert outcome(decided(low=2, in_flight=1)) == (2, Term.MINIMUM)


def test_a_schedule_raises_the_minimum_but_not_the_maximum() -> None:
    assert outcome(decided(scheduled=3)) == (3, Term.SCHEDULE)
    assert outcome(decided(low=3, scheduled=2)) == (3, Term.MINIMUM)
    assert decided(high=2, scheduled=3).desired == 2


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        ({"held": 1}, "1 replica: 0 in flight, 1 held, 0 queued"),
        (
            {"held": 40},
            "2 replicas: 0 in flight, 40 held, 0 queued, to be served 10 s after a cold start",
        ),
        (
            {"in_flight": 5, "ready": 2, "arrivals_per_s": 1.5, **LEARNED},
            "2 replicas: 1.50 requests a second, where one replica finishes 1.60",
        ),
        (
            {"in_flight": 1, "ready": 2, "kept": 2},
            "2 replicas: work calls for 1, and another start would soon cost more than keeping "
            "them",
        ),
        ({"idle_s": 12.4}, "1 replica: idle for 12 s, less than the 60 s it is kept"),
        ({}, "0 replicas: nothing in flight or queued, and the 60 s it is kept are over"),
        (
            {"held": 9000},
            "50 replicas: the declared maximum, where 9000 requests of work call for 282",
        ),
    ],
)
def test_a_decision_explains_itself(signals: dict[str, Any], sentence: str) -> None:
    assert decided(**signals).sentence == sentence


# --- properties -----------------------------------------------------------------------------------

counts = st.integers(0, 200)
seconds = st.floats(0, 300, allow_nan=False)
all_bounds = st.builds(
    lambda low, extra, target, idle, clear, scheduled: Bounds(
        low, max(1, low + extra), target, idle, clear, scheduled
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.none() | st.integers(1, 8),
    seconds,
    seconds,
    st.integers(0, 30),
)
all_signals = st.builds(
    Signals,
    in_flight=counts,
    held=counts,
    queued=counts,
    idle_s=st.none() | seconds,
    ready=st.integers(0, 20),
    starting=st.lists(seconds, max_size=5).map(tuple),
    cold_start_s=st.floats(0.1, 300),
    slots=st.floats(1, 64),
    arrivals_per_s=st.floats(0, 50),
    tokens_per_request=st.just(0.0) | st.floats(1, 5000),
    held_tokens=st.integers(0, 10**6),
    tokens_per_s=st.none() | st.floats(1, 10**4),
    kv_used=st.floats(0, 1),
    kv_waiting=counts,
    kept=st.integers(0, 30),
)


@given(all_bounds, all_signals)
def test_the_count_is_within_bounds_and_zero_only_without_work_after_the_idle_time(
    bounds: Bounds, signals: Signals
) -> None:
    decision = decide(bounds, signals)
    assert bounds.min_replicas <= decision.desired <= bounds.max_replicas
    assert decision.desired >= min(bounds.scheduled_min, bounds.max_replicas)
    assert decision.sentence
    if signals.work:
        assert decision.desired >= 1
    if signals.idle_s is not None and signals.idle_s < bounds.idle_timeout_s:
        assert decision.desired >= 1


@given(all_bounds, all_signals, st.sampled_from(["in_flight", "held", "queued"]), counts)
def test_more_work_never_calls_for_fewer_replicas(
    bounds: Bounds, signals: Signals, kind: str, more: int
) -> None:
    grown = replace(signals, **{kind: getattr(signals, kind) + more})
    assert decide(bounds, grown).desired >= decide(bounds, signals).desired


@given(all_bounds, all_signals)
def test_what_a_decision_calls_for_once_it_starts_calls_for_no_more(
    bounds: Bounds, signals: Signals
) -> None:
    called_for = decide(bounds, signals).called_for
    missing = max(0, called_for - signals.live)
    started = (*signals.starting, *((signals.cold_start_s,) * missing))
    assert decide(bounds, replace(signals, starting=started)).called_for <= called_for


@given(all_bounds, all_signals)
def test_a_decision_replays_from_its_record_to_the_same_result(
    bounds: Bounds, signals: Signals
) -> None:
    decision = decide(bounds, signals)
    recorded = json.loads(json.dumps(decision.inputs))
    again = recorded["signals"] | {"starting": tuple(recorded["signals"]["starting"])}
    assert decide(Bounds(**recorded["bounds"]), Signals(**again)) == decision


# --- the age and the tokens of durable work -------------------------------------------------------


def test_long_requests_in_the_queue_count_for_several() -> None:
    short = decided(queued=100, queued_tokens=100 * 500, clear_s=60.0, **LEARNED)
    long = decided(queued=100, queued_tokens=1000 * 500, clear_s=60.0, **LEARNED)
    assert (short.desired, long.desired) == (1, 9)


def test_short_requests_in_the_queue_need_a_slot_each_all_the_same() -> None:
    tiny = decided(queued=1000, queued_tokens=1000, clear_s=60.0, **LEARNED)
    assert tiny.desired == decided(queued=1000, clear_s=60.0, **LEARNED).desired


def test_what_waits_for_long_already_is_cleared_sooner_but_not_by_any_number_of_replicas() -> None:
    def after(seconds: float) -> int:
        return decided(queued=1000, oldest_queued_s=seconds, clear_s=60.0, **LEARNED).desired

    assert [after(seconds) for seconds in (0, 30, 45, 86_400)] == [9, 16, 25, 25]
