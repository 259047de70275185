"""Who leads, as values."""

from __future__ import annotations

from tidegate_controlplane.domain.leadership import Claim, may_take_over
from tidegate_controlplane.domain.sighting import observe

LEASE_S = 10.0
BEAT = Claim("one", 1, 5)
NEXT = Claim("one", 1, 6)


def test_nobody_waits_where_there_is_no_leader() -> None:
    assert may_take_over(observe(None, Claim("", 3, 9), 0.0), 0.0, LEASE_S)


def test_a_leader_is_lost_when_its_beat_has_not_changed_for_a_lease() -> None:
    seen = observe(None, BEAT, 100.0)
    for now_s in (100.0, 105.0, 109.9):
        seen = observe(seen, BEAT, now_s)
        assert not may_take_over(seen, now_s, LEASE_S)
    assert may_take_over(observe(seen, BEAT, 110.0), 110.0, LEASE_S)


def test_one_that_beats_is_never_lost() -> None:
    seen = observe(None, BEAT, 0.0)
    seen = observe(seen, NEXT, 9.0)
    assert not may_take_over(seen, 18.9, LEASE_S)


def test_an_observer_that_was_paused_judges_by_what_it_sees_afterwards() -> None:
    seen = observe(None, BEAT, 0.0)
    assert not may_take_over(observe(seen, NEXT, 1000.0), 1000.0, LEASE_S)


def test_a_new_owner_begins_a_new_lease() -> None:
    seen = observe(None, BEAT, 0.0)
    assert not may_take_over(observe(seen, Claim("two", 2, 5), 11.0), 11.0, LEASE_S)
