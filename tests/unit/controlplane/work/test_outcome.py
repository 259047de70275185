"""What becomes of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.errors import DeadlinePassed, Unavailable, UpstreamFailed
from tidegate_controlplane.settings import WorkSettings
from tidegate_controlplane.work.outcome import (
    REQUEST_LOST,
    Again,
    End,
    Interrupted,
    Outage,
    Success,
    Try,
    after_lost_lease,
    backoff_s,
    decide,
)

SETTINGS = WorkSettings(retry_base_s=1.0, retry_max_s=60.0)
FIRST = Try(attempt=1, max_attempts=3, timeout_s=900.0, jitter=0.0)
LAST = Try(attempt=3, max_attempts=3, timeout_s=900.0, jitter=0.0)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def answer(status, document):
    return Answer(status, json.dumps(document).encode())


def test_an_answer_with_a_json_object_succeeds_and_counts_its_tokens():
    reply = answer(200, {"usage": {"prompt_tokens": 3, "completion_tokens": 5}})
    assert decide(reply, FIRST, SETTINGS) == Success(reply.body, 3, 5)


def test_an_answer_without_usage_succeeds_with_no_tokens():
    assert decide(answer(200, {}), FIRST, SETTINGS) == Success(b"{}", 0, 0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"{"])
def test_a_good_status_with_an_unreadable_body_is_tried_again(body):
    outcome = decide(Answer(200, body), FIRST, SETTINGS)
    assert isinstance(outcome, Again) and outcome.counted
    assert outcome.failure and outcome.failure.code == "unreadable_answer"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_request_at_fault_fails_at_once_and_keeps_the_replicas_words(status):
    error = {"message": "too long", "type": "invalid_request_error", "param": "p", "code": "c"}
    outcome = decide(answer(status, {"error": error}), FIRST, SETTINGS)
    assert isinstance(outcome, End) and outcome.state is InvocationState.FAILED
    assert outcome.failure and outcome.failure.model_dump() == {**error, "status_code": status}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_a_replica_at_fault_is_tried_again_while_attempts_are_left_and_dead_after(status):
    again = decide(answer(status, {}), FIRST, SETTINGS)
    assert isinstance(again, Again) and again.counted
    dead = decide(answer(status, {}), LAST, SETTINGS)
    assert isinstance(dead, End) and dead.state is InvocationState.DEAD
    assert dead.failure and dead.failure.status_code == status


@pytest.mark.parametrize("error", [UpstreamFailed("x"), Unavailable("x"), DeadlinePassed("x")])
def test_no_answer_is_tried_again_and_the_cause_is_kept_in_the_end(error):
    again = decide(error, FIRST, SETTINGS)
    assert isinstance(again, Again) and again.counted
    dead = decide(error, LAST, SETTINGS)
    assert isinstance(dead, End) and dead.state is InvocationState.DEAD
    assert dead.failure and dead.failure.code == error.code


def test_a_run_that_took_as_long_as_it_may_fails_and_is_not_tried_again():
    outcome = decide(Interrupted.TIMEOUT, FIRST, SETTINGS)
    assert isinstance(outcome, End) and outcome.state is InvocationState.FAILED
    assert outcome.failure and outcome.failure.code == "timeout"
    assert "900 s" in outcome.failure.message


@pytest.mark.parametrize(
    "why",
    [Interrupted.NO_REPLICA, Interrupted.SHUTDOWN, Interrupted.LOST],
    ids=str,
)
def test_what_is_not_the_requests_fault_is_no_attempt_even_when_it_was_the_last(why):
    outcome = decide(why, LAST, SETTINGS)
    assert isinstance(outcome, Again) and not outcome.counted


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 2.5), (0.5, 3.75)])
def test_storage_that_is_away_is_asked_again_in_seconds_and_costs_no_attempt(jitter, seconds):
    tried = Try(attempt=3, max_attempts=3, timeout_s=900.0, jitter=jitter)
    outcome = decide(Outage(REQUEST_LOST), tried, SETTINGS)
    assert outcome == Again(seconds, counted=False, failure=REQUEST_LOST)


def test_a_cancelled_run_is_canceled():
    assert decide(Interrupted.CANCELED, FIRST, SETTINGS) == End(InvocationState.CANCELED)


def test_a_body_that_cannot_be_found_is_dead_in_the_end():
    outcome = decide(REQUEST_LOST, LAST, SETTINGS)
    assert outcome == End(InvocationState.DEAD, REQUEST_LOST)


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [(1, 0.0, 0.5), (1, 1.0, 1.0), (2, 0.0, 1.0), (3, 0.5, 3.0), (30, 1.0, 60.0)],
)
def test_a_back_off_doubles_up_to_its_limit_and_half_of_it_is_random(attempt, jitter, seconds):
    tried = Try(attempt, 99, 900.0, jitter)
    assert backoff_s(tried, SETTINGS) == pytest.approx(seconds)


def test_a_lost_lease_costs_an_attempt_and_the_last_one_is_the_end():
    again = after_lost_lease(1, 3, cancel_requested=False)
    assert isinstance(again, Again) and again.counted
    dead = after_lost_lease(3, 3, cancel_requested=False)
    assert isinstance(dead, End) and dead.state is InvocationState.DEAD


def test_a_lost_lease_whose_cancellation_was_asked_for_is_canceled():
    assert after_lost_lease(1, 3, cancel_requested=True) == End(InvocationState.CANCELED)
