"""When a replica is left out, and how often a request is given to a second one."""

from __future__ import annotations

from tidegate_controlplane.domain.ejection import (
    BASE_S,
    FAILURES,
    MOST_S,
    Standing,
    may_eject,
    may_retry,
)


def test_some_failures_in_a_row_make_a_replica_suspect() -> None:
    standing = Standing()
    for _ in range(FAILURES - 1):
        standing = standing.after_failure()
        assert not standing.is_suspect
    assert standing.after_failure().is_suspect


def test_each_ejection_lasts_twice_as_long_up_to_a_bound() -> None:
    standing, lasted = Standing(), []
    for _ in range(6):
        standing = standing.after_ejection(100.0)
        lasted.append(standing.until - 100.0)
    assert lasted[:3] == [BASE_S, 2 * BASE_S, 4 * BASE_S]
    assert lasted[-1] == MOST_S


def test_a_replica_is_out_for_its_time_and_back_on_probation() -> None:
    standing = Standing().after_ejection(100.0)
    assert standing.is_ejected(100.0 + BASE_S - 0.1)
    assert not standing.is_ejected(100.0 + BASE_S)
    assert not standing.is_suspect
    assert standing.after_failure().is_suspect


def test_at_most_half_are_out_at_once_unless_they_are_dead() -> None:
    assert not may_eject(0, 1, dead=False)
    assert may_eject(0, 2, dead=False)
    assert not may_eject(1, 3, dead=False)
    assert may_eject(1, 4, dead=False)
    assert may_eject(1, 1, dead=True)


def test_retries_are_a_fifth_of_what_is_in_flight_or_one_replica_s_worth() -> None:
    assert may_retry(19, 100, largest=5)
    assert not may_retry(20, 100, largest=5)
    assert may_retry(2, 3, largest=0)
    assert not may_retry(3, 3, largest=0)
    assert may_retry(19, 20, largest=20)
