"""Ski-rental: how long a replica is kept that is not needed now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.domain.keep_alive import EDGES, Gaps, KeepAlive


def gaps(*seconds: float) -> Gaps:
    found = Gaps()
    for gap_s in seconds:
        found.add(gap_s)
    return found


def test_without_knowledge_it_is_kept_for_what_a_cold_start_costs() -> None:
    assert gaps().keep_alive_s(100.0) == 100.0
    assert gaps(500, 500).keep_alive_s(100.0) == 100.0


def test_gaps_shorter_than_the_price_are_kept_through() -> None:
    kept_s = gaps(*[50.0] * 20).keep_alive_s(100.0)
    assert 50.0 <= kept_s < 50.0 * 2**0.5


def test_gaps_longer_than_the_price_are_not_waited_for() -> None:
    assert gaps(*[500.0] * 20).keep_alive_s(100.0) == 0.0


def test_of_short_and_long_gaps_it_waits_through_the_short_ones() -> None:
    kept_s = gaps(*[10.0, 10.0, 5000.0] * 10).keep_alive_s(100.0)
    assert 10.0 <= kept_s < 10.0 * 2**0.5


def test_old_gaps_are_forgotten() -> None:
    assert gaps(*[500.0] * 50, *[20.0] * 100).keep_alive_s(100.0) > 0.0


def test_a_history_has_a_bounded_size() -> None:
    found = gaps(*(float(n) for n in range(1, 2000)), 1e9, 0.0)
    assert len(found.counts) == len(EDGES)
    assert found.total < 40


@given(st.lists(st.floats(0.1, 80_000), min_size=8, max_size=60), st.floats(1, 5000))
def test_over_the_gaps_seen_it_costs_no_more_than_breaking_even_would(
    seconds: list[float], price_s: float
) -> None:
    found = gaps(*seconds)
    chosen = found._cost(found.keep_alive_s(price_s), price_s)
    assert all(chosen <= found._cost(edge, price_s) + 1e-6 for edge in (0.0, *EDGES))


def test_a_replica_is_kept_after_it_was_needed_and_then_no_longer() -> None:
    memory = KeepAlive()
    memory.see(3, 0.0)
    memory.see(1, 10.0)
    assert memory.kept(100.0, 109.0) == 3
    assert memory.kept(100.0, 110.0) == 1


def test_each_replica_has_a_history_of_its_own() -> None:
    memory, now_s = KeepAlive(), 0.0
    for _ in range(10):
        memory.see(2, now_s)
        memory.see(1, now_s + 10)
        memory.see(2, now_s + 20)
        memory.see(3, now_s + 25)
        now_s += 1000
        memory.see(2, now_s - 900)
    memory.see(1, now_s)
    assert memory.levels[2].gaps.keep_alive_s(100.0) == 0.0
    assert memory.levels[1].gaps.keep_alive_s(100.0) >= 10.0
    assert memory.kept(100.0, now_s + 5) == 2


def test_the_first_replica_is_kept_through_the_usual_silence() -> None:
    memory = KeepAlive()
    assert memory.first_keep_alive_s(100.0) == 100.0
    for turn in range(20):
        memory.see(1, turn * 40.0)
        memory.see(0, turn * 40.0 + 10.0)
    assert memory.first_keep_alive_s(100.0) == pytest.approx(32.0)
