"""Which replica answers."""

from __future__ import annotations

from tidegate_controlplane.domain.routing import Candidate, choose


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
