"""Which replica answers."""

from __future__ import annotations

from tidegate_controlplane.domain.routing import Candidate, WeightedTurns, choose


def test_without_candidates_nobody_is_chosen() -> None:
    assert choose([]) is None


def test_the_least_loaded_replica_answers() -> None:
    assert choose([Candidate("a", 3, 4), Candidate("b", 1, 4), Candidate("c", 2, 4)]) == "b"


def test_load_is_reckoned_against_the_capacity_of_each() -> None:
    assert choose([Candidate("small", 2, 4), Candidate("large", 3, 16)]) == "large"


def test_equal_loads_go_to_the_smaller_id_in_any_order() -> None:
    pair = [Candidate("a", 1, 2), Candidate("b", 2, 4)]
    assert choose(pair) == choose(pair[::-1]) == "a"


def test_an_excluded_replica_is_passed_over_even_when_it_is_idle() -> None:
    assert choose([Candidate("a", 0, 4), Candidate("b", 4, 4)], {"a"}) == "b"


def test_an_excluded_replica_is_better_than_none() -> None:
    assert choose([Candidate("a", 9, 4), Candidate("b", 1, 4)], {"a", "b"}) == "b"


def turns(weights: dict[str, float], number: int, able: set[str] | None = None) -> list[str | None]:
    shares = WeightedTurns()
    shares.set(weights)
    return [shares.next(able or set(weights)) for _ in range(number)]


def test_turns_follow_the_shares_exactly_and_evenly() -> None:
    found = turns({"old": 0.8, "new": 0.2}, 10)
    assert found.count("new") == 2
    assert abs(found.index("new", found.index("new") + 1) - found.index("new")) == 5


def test_who_has_no_share_or_is_not_able_has_no_turn() -> None:
    assert set(turns({"old": 1.0, "new": 0.0}, 5)) == {"old"}
    assert set(turns({"old": 0.9, "new": 0.1}, 5, {"new"})) == {"new"}
    assert turns({}, 1, {"new"}) == [None]


def test_setting_the_same_shares_again_does_not_begin_anew() -> None:
    shares, found = WeightedTurns(), []
    for _ in range(20):
        shares.set({"old": 0.95, "new": 0.05})
        found.append(shares.next({"old", "new"}))
    assert found.count("new") == 1
