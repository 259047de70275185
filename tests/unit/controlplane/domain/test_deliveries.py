"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from tidegate_controlplane.domain.deliveries import (
    Delivered,
    GivenUp,
    Later,
    Schedule,
    Tried,
    judge,
    pause_s,
    retry_after_s,
    shares,
)
from tidegate_controlplane.settings import WebhookSettings
from tidegate_controlplane.webhooks.deliverer import schedule_of

SCHEDULE = schedule_of(WebhookSettings())
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY_S = 86_400.0


def judged(status, number=1, failing_s=0.0, retry_after_s=None, jitter=0.5):
    return judge(Tried(status, retry_after_s), number, failing_s, SCHEDULE, jitter)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_2xx_is_delivered(status):
    assert judged(status) == Delivered()


@pytest.mark.parametrize("status", [None, 100, 301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_anything_else_and_silence_is_tried_again(status):
    assert isinstance(judged(status), Later)


def test_gone_is_given_up_at_once_and_disables_the_webhook():
    assert judged(410) == GivenUp(disable="the receiver answered 410 Gone")


def test_the_last_try_is_given_up_and_the_one_before_is_not():
    assert isinstance(judged(500, SCHEDULE.tries - 1), Later)
    assert judged(500, SCHEDULE.tries) == GivenUp()


def test_a_webhook_that_failed_for_days_is_disabled_with_its_last_try():
    assert judged(500, SCHEDULE.tries, failing_s=5 * DAY_S - 1) == GivenUp()
    assert judged(500, SCHEDULE.tries, failing_s=5 * DAY_S) == GivenUp(
        disable="every try has failed for 5.0 days"
    )
    assert isinstance(judged(500, 1, failing_s=9 * DAY_S), Later)


def test_twelve_tries_take_a_day():
    pauses = [pause_s(number, None, SCHEDULE, 0.5) for number in range(1, SCHEDULE.tries)]
    assert len(pauses) == 11
    assert sum(pauses) == pytest.approx(DAY_S, rel=0.05)
    assert all(later > earlier for earlier, later in pairwise(pauses))


def test_a_pause_is_within_a_fifth_of_its_middle():
    middle = pause_s(4, None, SCHEDULE, 0.5)
    assert pause_s(4, None, SCHEDULE, 0.0) == pytest.approx(0.8 * middle)
    assert pause_s(4, None, SCHEDULE, 0.999) == pytest.approx(1.2 * middle, rel=0.01)


def test_a_receiver_may_ask_for_a_longer_pause_but_not_a_shorter_one_nor_for_ever():
    assert judged(429, 1, retry_after_s=120.0) == Later(120.0)
    assert judged(429, 1, retry_after_s=1.0) == judged(429, 1)
    assert judged(503, 1, retry_after_s=1e9) == Later(SCHEDULE.retry_after_max_s)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 2026 12:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_s(value, NOW) == seconds


def test_room_goes_round_one_at_a_time_from_the_one_after_the_last():
    assert shares(["a", "b", "c"], {}, 2, 4, "a") == {"b": 1, "c": 1}
    assert shares(["a", "b", "c"], {}, 4, 4, "a") == {"b": 2, "c": 1, "a": 1}


def test_no_webhook_gets_more_than_its_part_of_the_room():
    assert shares(["a", "b"], {"a": 3}, 9, 4, "") == {"a": 1, "b": 4}
    assert shares(["a"], {"a": 4}, 9, 4, "") == {}
    assert shares([], {}, 9, 4, "") == {}


def test_a_schedule_of_one_try_has_no_second():
    once = Schedule(tries=1, base_s=5, factor=2, retry_after_max_s=9, give_up_after_s=DAY_S)
    assert judge(Tried(500), 1, 0.0, once, 0.5) == GivenUp()
