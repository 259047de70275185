from __future__ import annotations

import pytest
from benchmarks.durable.served import KEPT, PLAIN, Taken, rows


def test_durability_costs_the_difference_of_the_two_ways_in_their_median_turns() -> None:
    plain = [Taken(100, seconds) for seconds in (0.1, 0.2, 9.0)]
    kept = [Taken(50, seconds) for seconds in (0.5, 0.4, 0.6)]
    found = {row.metric: row.value for row in rows({PLAIN: plain, KEPT: kept}, clients=8)}
    assert found == {PLAIN: pytest.approx(2.0), KEPT: pytest.approx(10.0), "durability": 8.0}
