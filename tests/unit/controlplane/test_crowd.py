"""What other control planes are asked for, as it is read from their rows."""

from __future__ import annotations

from typing import Any

from tidegate_controlplane.gateway.demand import Demand, combined
from tidegate_controlplane.peers.crowd import Crowd, Told
from tidegate_controlplane.store.tables import ControlPlane

STALE_S = 5.0


def row(key: str, beat: int, seen: int = 1, in_flight: int = 0, **demand: Any) -> ControlPlane:
    values: dict[str, Any] = {"held": 0, "in_flight": in_flight, "idle_s": None, **demand}
    told = Told(demand={"dep": Demand(**values)}, in_flight={"rep": in_flight})
    return ControlPlane(id=key, beat=beat, place={}, demand=told.model_dump(mode="json"), seen=seen)


def seen(crowd: Crowd) -> Demand:
    nothing = Demand(held=0, in_flight=0, idle_s=None)
    return combined([nothing, *crowd.demand("dep")])


def test_what_each_of_them_is_asked_for_is_added_up() -> None:
    crowd = Crowd(STALE_S)
    crowd.see([row("a", 1, in_flight=2), row("b", 1, in_flight=3, held=1)], 0.0)
    assert (seen(crowd).in_flight, seen(crowd).held) == (5, 1)
    assert crowd.in_flight_on("rep") == 5


def test_one_that_is_not_heard_of_any_more_counts_no_more() -> None:
    crowd = Crowd(STALE_S)
    crowd.see([row("a", 1, in_flight=2)], 0.0)
    crowd.see([row("a", 1, in_flight=2)], 4.9)
    assert seen(crowd).in_flight == 2
    crowd.see([row("a", 1, in_flight=2)], 5.0)
    assert seen(crowd).in_flight == 0
    assert not crowd.has_any
    assert crowd.silent(5.0) == ["a"]
    crowd.see([row("a", 2, in_flight=2)], 60.0)
    assert seen(crowd).in_flight == 2


def test_counters_of_a_newcomer_or_of_one_that_is_gone_are_no_burst() -> None:
    crowd = Crowd(STALE_S)
    crowd.see([row("old", 1, arrivals=100_000, arrived_tokens=9, finished_tokens=9)], 0.0)
    assert seen(crowd).arrivals == 0
    crowd.see([row("old", 2, arrivals=100_003, arrived_tokens=12, finished_tokens=10)], 1.0)
    found = seen(crowd)
    assert (found.arrivals, found.arrived_tokens, found.finished_tokens) == (3, 3, 1)
    crowd.see([], 2.0)
    assert seen(crowd).arrivals == 3, "it never falls"


def test_the_platform_is_idle_since_the_last_of_them_was_and_grows_so() -> None:
    crowd = Crowd(STALE_S)
    rows = [row("a", 1, idle_s=30.0), row("b", 1, idle_s=7.0), row("c", 1)]
    crowd.see(rows, 0.0)
    crowd.see(rows, 2.0)
    assert seen(crowd).idle_s == 9.0


def test_one_that_works_is_not_idle_however_old_its_row_is() -> None:
    crowd = Crowd(STALE_S)
    crowd.see([row("a", 1, in_flight=1, idle_s=0.0)], 0.0)
    crowd.see([row("a", 1, in_flight=1, idle_s=0.0)], 3.0)
    assert seen(crowd).idle_s == 0.0


def test_a_row_that_is_new_and_holds_requests_is_news() -> None:
    crowd = Crowd(STALE_S)
    assert crowd.see([row("a", 1, held=1)], 0.0)
    assert not crowd.see([row("a", 1, held=1)], 0.1)
    assert crowd.see([row("a", 2, held=1)], 0.2)
    assert not crowd.see([row("a", 3)], 0.3)


def test_the_crowd_lags_until_each_that_lives_goes_by_what_is_published() -> None:
    crowd = Crowd(STALE_S)
    crowd.see([row("a", 1, seen=7), row("b", 1, seen=6)], 0.0)
    assert crowd.lags(7)
    crowd.see([row("a", 2, seen=7), row("b", 1, seen=6)], 5.0)
    assert not crowd.lags(7), "b is gone"
