"""When a request is sent again. The flow is driven by hand: nothing here waits."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate import errors
from tidegate.flow.retry import RetryPolicy, attempt, with_retries
from tidegate.flow.steps import Reply, Request, Sleep, ask

GOOD = Reply(200, {}, b"{}")
POLICY = RetryPolicy(max_retries=2, chance=lambda: 0.0)


def _busy(status: int, retry_after: str | None = None) -> Reply:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Reply(status, headers, b'{"error": {"message": "busy", "type": "t"}}')


def _play(request: Request, *outcomes: Any, policy: RetryPolicy = POLICY) -> list[Any]:
    """Feed outcomes to the requests; returns the steps taken, the end last."""
    flow, steps, left = attempt(request, policy), [], list(outcomes)
    try:
        step = next(flow)
        while True:
            steps.append(step.seconds if isinstance(step, Sleep) else step.method)
            if isinstance(step, Sleep):
                step = flow.send(None)
                continue
            outcome = left.pop(0)
            step = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
    except StopIteration as done:
        assert done.value is GOOD
        return [*steps, "good"]
    except errors.TidegateError as error:
        return [*steps, type(error).__name__]


GET, POST = Request("GET", "/x"), Request("POST", "/x")
KEYED = Request("POST", "/x", headers={"Idempotency-Key": "k"})
GUARDED = Request("PUT", "/x", headers={"If-None-Match": "*"})
BROKEN = errors.ConnectionFailed("broke")
NEVER_SENT = errors.ConnectionFailed("refused", sent=False)


def test_a_good_answer_is_returned_at_once() -> None:
    assert _play(GET, GOOD) == ["GET", "good"]


@pytest.mark.parametrize("request_", [GET, KEYED, Request("PUT", "/x"), Request("DELETE", "/x")])
def test_a_broken_connection_is_retried_when_repeating_is_harmless(request_: Request) -> None:
    method = request_.method
    assert _play(request_, BROKEN, GOOD) == [method, 0.5, method, "good"]


@pytest.mark.parametrize("request_", [POST, GUARDED])
def test_a_broken_connection_is_not_retried_when_the_request_may_have_been_done(
    request_: Request,
) -> None:
    assert _play(request_, BROKEN) == [request_.method, "ConnectionFailed"]


def test_a_request_that_was_never_sent_is_retried_whatever_it_is() -> None:
    assert _play(POST, NEVER_SENT, GOOD) == ["POST", 0.5, "POST", "good"]


def test_the_wait_doubles_and_the_last_error_is_raised_when_the_retries_are_used_up() -> None:
    assert _play(GET, BROKEN, BROKEN, BROKEN) == [
        *("GET", 0.5, "GET", 1.0, "GET"),
        "ConnectionFailed",
    ]


def test_no_retries_means_one_attempt() -> None:
    assert _play(GET, BROKEN, policy=RetryPolicy(0)) == ["GET", "ConnectionFailed"]


def test_the_wait_is_at_most_eight_seconds_and_less_up_to_a_quarter_by_chance() -> None:
    lucky = RetryPolicy(max_retries=9, chance=lambda: 1.0)
    assert lucky.delay_s(BROKEN, GET, 0) == pytest.approx(0.375)
    assert lucky.delay_s(BROKEN, GET, 8) == pytest.approx(6.0)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_servers_own_wait_is_kept_to_the_second(status: int) -> None:
    assert _play(POST, _busy(status, "3"), GOOD) == ["POST", 3.0, "POST", "good"]


def test_a_rate_limit_without_a_wait_is_retried_with_back_off() -> None:
    assert _play(POST, _busy(429), GOOD) == ["POST", 0.5, "POST", "good"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 502, 503, 504])
def test_errors_that_waiting_does_not_help_are_raised_at_once(status: int) -> None:
    assert _play(GET, _busy(status))[:-1] == ["GET"]


def test_a_wait_of_more_than_a_minute_is_left_to_the_caller() -> None:
    assert _play(GET, _busy(503, "61")) == ["GET", "Unavailable"]


def test_an_error_is_raised_inside_the_flow_so_that_it_can_recover() -> None:
    def recovering() -> Any:
        try:
            yield from ask(GET)
        except errors.NotFound:
            return "gone"

    flow = with_retries(recovering(), POLICY)
    next(flow)
    with pytest.raises(StopIteration) as done:
        flow.send(_busy(404))
    assert done.value.value == "gone"
