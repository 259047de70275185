from __future__ import annotations

import math

import pytest
from benchmarks.against import Comparison, interval, table


@pytest.mark.parametrize("count", range(6, 60))
def test_the_interval_is_the_narrowest_that_is_sure_enough(count: int) -> None:
    low, high = interval(count)
    assert low + high == count - 1, "as many are left out on either side"
    outside = [math.comb(count, place) / 2**count for place in range(low + 1)]
    assert 2 * sum(outside) <= 0.05
    assert 2 * (sum(outside) + math.comb(count, low + 1) / 2**count) > 0.05


def test_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="5 pairs are too few for 95%; take 6 or more"):
        interval(5)


def test_pairs_are_compared_and_not_averages() -> None:
    """A machine that slows down by half in the midst changes no ratio."""
    pairs = [(100.0, 110.0)] * 4 + [(50.0, 55.0)] * 4
    row = Comparison("decode_1", "tok/s", pairs).row()
    assert row["ratio"] == row["low"] == row["high"] == pytest.approx(1.1)
    assert table([row])[-1] == "| `decode_1` | 75 | 82 tok/s | 1.100 | 1.100–1.100 | 8 |"
