"""The model of a cluster: what waits, what is paid for, and what is never cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tidegate_controlplane.simulate.cluster import ClusterSpec, Run, simulate
from tidegate_controlplane.simulate.policies.base import Observed
from tidegate_controlplane.simulate.replica import Speed
from tidegate_controlplane.simulate.trace import Arrival

SPEED = Speed(slots=2, step_s=0.1, step_s_per_sequence=0.0, prompt_tokens_per_s=100, cold_start_s=5)


@dataclass
class Told:
    """A policy that does as a test says."""

    rule: Callable[[Observed], int]
    minimum: int = 0
    name: str = "told"
    interval_s: float = 1.0

    def desired(self, seen: Observed) -> int:
        return self.rule(seen)


def request(at_s: float, output: int = 99) -> Arrival:
    """One that takes a tenth of a second for its prompt, and as much for each token."""
    return Arrival(at_s, 10, output)


def ran(
    trace: list[Arrival], rule: Callable[[Observed], int], *, minimum: int = 0, hold_s: float = 300
) -> Run:
    return simulate(trace, Told(rule, minimum), ClusterSpec(SPEED, 10, hold_s))


def test_a_request_at_zero_waits_for_the_cold_start_and_its_prompt() -> None:
    run = ran([request(3.0)], lambda _seen: 1)
    assert run.waits_s == [pytest.approx(2.1)]


def test_a_request_finds_no_replica_and_wakes_the_policy_at_once() -> None:
    run = ran([request(3.5)], lambda seen: 1 if seen.held or seen.in_flight else 0)
    assert run.waits_s == [pytest.approx(5.1)]


def test_requests_beyond_the_slots_wait_for_the_first_to_end() -> None:
    run = ran([request(10.0, 49), request(10.0), request(10.0)], lambda _seen: 1)
    assert run.waits_s == [pytest.approx(0.1), pytest.approx(0.1), pytest.approx(5.1)]


def test_sequences_of_one_batch_slow_each_other_down() -> None:
    slow = Speed(slots=4, step_s=0.1, step_s_per_sequence=0.1, cold_start_s=1)
    alone = simulate([request(1.0)], Told(lambda _seen: 1), ClusterSpec(slow))
    both = simulate([request(1.0), request(1.0)], Told(lambda _seen: 1), ClusterSpec(slow))
    assert both.replica_s > 1.4 * alone.replica_s
    assert both.replica_s < 2.0 * alone.replica_s


def test_a_replica_costs_its_cold_start_its_work_and_its_drain() -> None:
    run = ran([request(0.0, 99)], lambda seen: 1 if seen.now_s < 8 else 0)
    # Ready after 5 s, then 100 steps of a tenth of a second: told to end at 8 s, it drains.
    assert run.replica_s == pytest.approx(15.0)
    assert len(run.waits_s) == 1
    assert run.failed == 0


def test_of_surplus_replicas_those_that_start_end_first_and_then_the_idle_ones() -> None:
    def rule(seen: Observed) -> int:
        return 2 if seen.now_s < 6 else 3 if seen.now_s < 8 else 1

    run = ran([request(5.5, 199)], rule)
    assert run.cold_starts == 3
    # The busy one runs to the end of its request at 25.5 s; the others end at 8 s.
    assert run.replica_s == pytest.approx(26.0 + 8.0 + 2.0, abs=0.6)


def test_a_request_that_waited_for_too_long_fails() -> None:
    run = ran([request(0.0), request(4.5)], lambda seen: int(seen.now_s >= 4), hold_s=6)
    assert run.failed == 1
    assert run.waits_s == [pytest.approx(4.6)]


def test_a_run_without_requests_ends() -> None:
    assert ran([], lambda _seen: 0) == Run(desired=[(0.0, 0)])


def test_changes_of_direction_are_counted() -> None:
    counts = [0, 2, 3, 1, 0, 1]
    assert Run(desired=[(float(at), count) for at, count in enumerate(counts)]).flaps == 2


def test_every_request_ends_one_way_or_the_other() -> None:
    trace = [request(n * 0.7, n % 40) for n in range(300)]
    run = ran(trace, lambda seen: 1 + int(seen.now_s / 7) % 3, hold_s=20)
    assert len(run.waits_s) + run.failed == len(trace)
