"""Minimums of replicas at certain times. The moment is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from tidegate.spec import ScheduleSpec, SpecIssue

_ANY_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def scheduled_min(schedule: Sequence[ScheduleSpec], now: datetime) -> int:
    """The largest minimum that holds at `now`; 0 when none does.

    Local times that daylight saving skips or repeats are treated as by Debian's cron.
    """
    return max((entry.min_replicas for entry in schedule if _holds(entry, now)), default=0)


def schedule_issues(schedule: Sequence[ScheduleSpec]) -> Iterator[SpecIssue]:
    """What is wrong with the times of a schedule, so that `scheduled_min` can rely on them."""
    for index, entry in enumerate(schedule):
        field = f"scaling.schedule.{index}"
        try:
            zone = ZoneInfo(entry.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield SpecIssue(
                f"{field}.timezone",
                entry.timezone,
                f"{entry.timezone!r} is no known time zone; use a name such as 'Europe/Berlin'",
            )
            continue
        try:
            next(CronSim(entry.cron, _ANY_MOMENT.astimezone(zone)))
        except (CronSimError, StopIteration) as error:
            yield SpecIssue(
                f"{field}.cron",
                entry.cron,
                f"{entry.cron!r} names no time ({str(error) or 'it never comes'}); "
                "correct it, as in '0 8 * * 1-5'",
            )


def _holds(entry: ScheduleSpec, now: datetime) -> bool:
    """Whether it last began less than its duration ago; the minute of `now` itself counts."""
    local = now.astimezone(ZoneInfo(entry.timezone)) + timedelta(microseconds=1)
    began = next(CronSim(entry.cron, local, reverse=True), None)
    return began is not None and now - began < timedelta(seconds=entry.duration_s)
