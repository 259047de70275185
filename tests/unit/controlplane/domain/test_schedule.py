"""Minimums at certain times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tidegate.spec import ScheduleSpec
from tidegate_controlplane.domain.schedule import scheduled_min

OFFICE = ScheduleSpec(
    cron="0 8 * * 1-5", duration_s=10 * 3600, min_replicas=2, timezone="Europe/Berlin"
)
LUNCH = ScheduleSpec(cron="0 12 * * *", duration_s=3600, min_replicas=5)


@pytest.mark.parametrize(
    ("moment", "minimum"),
    [
        ("2026-11-20T06:59:59", 0),
        ("2026-11-20T07:00:00", 2),
        ("2026-11-20T12:00:00", 5),
        ("2026-11-20T12:59:59", 5),
        ("2026-11-20T13:00:00", 2),
        ("2026-11-20T16:59:59", 2),
        ("2026-11-20T17:00:00", 0),
        ("2026-11-21T09:00:00", 0),
        ("2026-07-03T06:00:00", 2),
    ],
)
def test_the_largest_minimum_that_holds_counts_in_the_local_time_of_each(
    moment: str, minimum: int
) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert scheduled_min([OFFICE, LUNCH], now) == minimum


def test_a_window_goes_on_over_midnight() -> None:
    night = ScheduleSpec(cron="0 22 * * *", duration_s=8 * 3600, min_replicas=1)
    assert scheduled_min([night], datetime(2026, 1, 1, 5, 59, tzinfo=UTC)) == 1
    assert scheduled_min([night], datetime(2026, 1, 1, 6, 0, tzinfo=UTC)) == 0


def test_without_a_schedule_there_is_no_minimum() -> None:
    assert scheduled_min([], datetime(2026, 1, 1, tzinfo=UTC)) == 0
