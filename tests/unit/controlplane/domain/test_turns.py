"""Which revision is next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.domain.turns import CATCH_UP, draw

SHARES = st.dictionaries(
    st.sampled_from("abcd"), st.floats(0.01, 1.0), min_size=1, max_size=4
).filter(bool)


def drawn(weights: dict[str, float], times: int, able: str = "", credit=None):
    found, credit = [], credit or {}
    for _ in range(times):
        name, credit = draw(credit, weights, able or weights)
        found.append(name)
    return found, credit


@given(SHARES, st.integers(1, 200))
def test_every_revision_has_its_share_of_any_number_give_or_take_one(
    weights: dict[str, float], times: int
) -> None:
    counted = Counter(drawn(weights, times)[0])
    total = sum(weights.values())
    for name, weight in weights.items():
        assert abs(counted[name] - times * weight / total) <= 1 + 1e-6 + len(weights) / 4


def test_shares_are_spread_not_sent_in_a_row() -> None:
    assert drawn({"a": 5, "b": 1, "c": 1}, 7)[0] == list("aabacaa")


def test_a_revision_without_room_is_passed_over_and_catches_up() -> None:
    weights = {"a": 0.5, "b": 0.5}
    first, credit = drawn(weights, 6, able="a")
    assert set(first) == {"a"}
    assert Counter(first + drawn(weights, 6, credit=credit)[0]) == {"a": 6, "b": 6}


def test_what_it_can_catch_up_is_bounded() -> None:
    _, credit = drawn({"a": 0.5, "b": 0.5}, 1000, able="a")
    assert credit["b"] == CATCH_UP


def test_without_any_that_is_able_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="empty"):
        draw({}, {"a": 1.0}, [])
