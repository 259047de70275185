"""What is learned of one replica from stretches of its work."""

from __future__ import annotations

import pytest

from tidegate_controlplane.domain.capacity import Capacity, Sample


def step_s(in_flight: float) -> float:
    """A replica whose step takes 30 ms, and 1 ms more for each sequence."""
    return 0.03 + 0.001 * in_flight


def after(*in_flight: float, seconds: float = 30.0) -> Capacity:
    capacity = Capacity()
    for n in in_flight:
        capacity = capacity.learn(Sample(seconds, n, n / step_s(n) * seconds))
    return capacity


def test_nothing_is_claimed_before_enough_was_seen() -> None:
    assert Capacity().tokens_per_s(16) is None
    assert after(0.1).tokens_per_s(16) is None
    assert after(4).tokens_per_s(16) is not None


def test_from_part_loads_it_predicts_what_a_full_replica_finishes() -> None:
    found = after(*(2, 8, 4, 10, 6) * 4).tokens_per_s(16)
    assert found == pytest.approx(16 / step_s(16), rel=0.03)


def test_at_a_constant_load_it_claims_no_slope() -> None:
    assert after(*(8,) * 10).tokens_per_s(16) == pytest.approx(16 / step_s(8), rel=0.01)


def test_what_changed_is_learned_anew() -> None:
    capacity = after(*(8,) * 60)
    for _ in range(60):
        capacity = capacity.learn(Sample(30.0, 8.0, 30 * 8 / 0.1))
    assert capacity.tokens_per_s(8) == pytest.approx(80, rel=0.1)


def test_a_stretch_without_work_or_without_tokens_teaches_nothing() -> None:
    known = after(8)
    assert known.learn(Sample(30.0, 0.0, 0.0)) == known
    assert known.learn(Sample(30.0, 8.0, 0.0)) == known


def test_a_full_kv_cache_lowers_the_slots_until_it_recovers() -> None:
    capacity = Capacity().pressed(running=6.0, waiting=3, slots=16, seconds=1.0)
    assert capacity.slots(16) == 6.0
    later = capacity.pressed(running=6.0, waiting=0, slots=16, seconds=30.0)
    assert later.slots(16) == pytest.approx(7.6)
    for _ in range(10):
        later = later.pressed(running=6.0, waiting=0, slots=16, seconds=30.0)
    assert later.slots(16) == 16.0


def test_requests_that_wait_for_a_slot_say_nothing_of_memory() -> None:
    assert Capacity().pressed(running=16.0, waiting=9, slots=16, seconds=1.0).slots(16) == 16.0
