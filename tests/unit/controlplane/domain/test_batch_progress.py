"""The rate of a batch, and whether it will be in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidegate_controlplane.domain.batch_progress import Span, Tally, progress, replica_share_s

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DUE = BEGAN + timedelta(hours=1)
RUNNING = Span(BEGAN, None, DUE)


def at(seconds):
    return BEGAN + timedelta(seconds=seconds)


def test_a_rate_is_of_the_last_minute_not_of_all_the_time():
    so_far, lately = Tally(succeeded=700), Tally(succeeded=110, failed=10, prompt_tokens=600)
    seen = progress(so_far, lately, 1000, RUNNING, at(600))
    assert (seen.window_s, seen.lines_per_s, seen.tokens_per_s) == (60.0, 2.0, 10.0)
    assert seen.completes_at == int(at(600 + 150).timestamp())
    assert seen.in_time is True


def test_in_its_first_minute_a_batch_is_measured_since_it_began():
    seen = progress(Tally(succeeded=20), Tally(succeeded=20), 40, RUNNING, at(10))
    assert (seen.window_s, seen.lines_per_s) == (10.0, 2.0)


@pytest.mark.parametrize(("left", "in_time"), [(3540, True), (3541, False)])
def test_it_is_late_when_the_rest_takes_longer_than_the_window(left, in_time):
    lately = Tally(succeeded=60)
    assert progress(lately, lately, 60 + left, RUNNING, at(60)).in_time is in_time


def test_while_no_line_ends_nothing_is_foretold():
    seen = progress(Tally(succeeded=5), Tally(), 10, RUNNING, at(600))
    assert (seen.lines_per_s, seen.completes_at, seen.in_time) == (0.0, None, None)


def test_a_rate_near_nothing_is_still_a_date():
    slow = progress(Tally(succeeded=1), Tally(succeeded=1), 10**12, RUNNING, at(600))
    assert slow.in_time is False


def test_an_ended_batch_tells_its_average_and_its_end():
    done = Tally(succeeded=90, failed=10, completion_tokens=50, replica_s=12.3456)
    seen = progress(done, done, 100, Span(BEGAN, at(50), DUE), at(9999))
    assert (seen.lines_per_s, seen.tokens_per_s, seen.replica_s) == (2.0, 1.0, 12.346)
    assert (seen.completes_at, seen.in_time) == (int(at(50).timestamp()), True)


@pytest.mark.parametrize(("usd_per_hour", "cost_usd"), [(None, None), (1.8, 0.01), (0.0, 0.0)])
def test_replica_seconds_cost_what_a_replica_costs_if_anything_is_rented(usd_per_hour, cost_usd):
    done = Tally(succeeded=1, replica_s=20.0)
    seen = progress(done, done, 1, Span(BEGAN, at(50), DUE), at(60), usd_per_hour)
    assert seen.cost_usd == cost_usd


def test_requests_beside_each_other_share_the_time_of_their_replicas():
    assert sum(replica_share_s(2.0, replicas=3, in_flight=12) for _ in range(12)) == 6.0
    assert replica_share_s(2.0, replicas=0, in_flight=0) == 2.0
