"""How a claim's room is shared between projects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.domain.shares import even_shares


@pytest.mark.parametrize(
    ("projects", "room", "shares"),
    [
        ([], 3, []),
        (["a"], 3, [("a", 3)]),
        (["a", "b"], 3, [("a", 2), ("b", 1)]),
        (["a", "b", "c"], 2, [("a", 1), ("b", 1)]),
        (["a", "b"], 0, []),
    ],
)
def test_places_are_offered_evenly_and_the_odd_ones_to_those_first_in_turn(
    projects: list[str], room: int, shares: list[tuple[str, int]]
) -> None:
    assert even_shares(projects, room) == shares


@given(st.integers(1, 50), st.integers(1, 200))
def test_every_place_is_offered_and_no_share_is_more_than_one_larger(
    number: int, room: int
) -> None:
    shares = [share for _, share in even_shares([str(n) for n in range(number)], room)]
    assert sum(shares) == room
    assert max(shares) - min(shares) <= 1
