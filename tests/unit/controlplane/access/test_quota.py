from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.resources import KeyRole
from tidegate_controlplane.access.bucket import Bucket
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.access.quota import Quotas, duration
from tidegate_controlplane.errors import RateLimited

rates = st.integers(1, 1_000_000)
moments = st.floats(0, 1e6)
amounts = st.floats(0, 1e7)


def principal(
    requests: int | None = None, tokens: int | None = None, key_id: str = "key_a"
) -> Principal:
    return Principal(key_id, "prj", "a key", KeyRole.INFERENCE, requests, tokens)


@given(rates, st.lists(st.tuples(amounts, st.floats(0, 600)), max_size=20))
def test_a_bucket_never_holds_more_than_a_minute_and_whoever_waits_as_told_is_let_in(
    rate: int, history: list[tuple[float, float]]
) -> None:
    now, bucket = 0.0, Bucket.full(rate, 0.0)
    for amount, pause_s in history:
        bucket = bucket.taken(amount, now)
        now += pause_s
        assert bucket.filled(now).level <= rate
        assert bucket.wait_s(1, now + bucket.wait_s(1, now)) == 0


@given(rates, amounts, moments, moments)
def test_time_that_runs_backwards_fills_nothing(
    rate: int, amount: float, one: float, other: float
) -> None:
    early, late = sorted((one, other))
    bucket = Bucket.full(rate, late).taken(amount, late)
    assert bucket.filled(early) == bucket


@given(rates, st.integers(1, 300))
def test_in_any_minute_at_most_two_minutes_worth_is_admitted(rate: int, asked: int) -> None:
    bucket, admitted = Bucket.full(rate, 0.0), 0
    for step in range(asked):
        now = step * 60 / asked
        if not bucket.wait_s(1, now):
            bucket, admitted = bucket.taken(1, now), admitted + 1
    assert admitted <= 2 * rate


def test_a_debt_is_waited_for() -> None:
    bucket = Bucket.full(60, 0.0).taken(180, 0.0)
    assert bucket.remaining(0.0) == 0
    assert bucket.wait_s(1, 0.0) == pytest.approx(121)
    assert bucket.full_in_s(0.0) == pytest.approx(180)


def test_requests_beyond_the_minute_are_refused_with_the_time_to_wait(clock: Any) -> None:
    quotas, caller = Quotas(clock), principal(requests=60)
    for _ in range(60):
        quotas.admit(caller)
    with pytest.raises(RateLimited, match="60 requests per minute") as caught:
        quotas.admit(caller)
    assert caught.value.retry_after_s == pytest.approx(1)
    clock.elapsed_s += 1
    quotas.admit(caller)


def test_a_refused_request_is_not_charged(clock: Any) -> None:
    quotas, caller = Quotas(clock), principal(requests=10, tokens=10)
    quotas.charge_tokens(caller, 15)
    for _ in range(50):
        with pytest.raises(RateLimited, match="tokens"):
            quotas.admit(caller)
    assert quotas.headers(caller)["x-ratelimit-remaining-requests"] == "10"


def test_tokens_are_charged_afterwards_and_a_debt_makes_the_next_request_wait(clock: Any) -> None:
    quotas, caller = Quotas(clock), principal(tokens=100)
    quotas.admit(caller)
    quotas.charge_tokens(caller, 250)
    with pytest.raises(RateLimited, match="tokens") as caught:
        quotas.admit(caller)
    clock.elapsed_s += caught.value.retry_after_s
    quotas.admit(caller)


def test_one_key_never_uses_anothers_quota(clock: Any) -> None:
    quotas = Quotas(clock)
    quotas.admit(principal(requests=1))
    with pytest.raises(RateLimited):
        quotas.admit(principal(requests=1))
    quotas.admit(principal(requests=1, key_id="key_b"))


def test_the_headers_say_limit_remaining_and_reset(clock: Any) -> None:
    quotas, caller = Quotas(clock), principal(requests=60, tokens=6000)
    quotas.admit(caller)
    quotas.charge_tokens(caller, 1500)
    assert quotas.headers(caller) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "4500",
        "x-ratelimit-reset-tokens": "15s",
    }


def test_what_is_not_limited_has_no_headers(clock: Any) -> None:
    assert Quotas(clock).headers(principal()) == {}
    assert not [h for h in Quotas(clock).headers(principal(requests=1)) if "tokens" in h]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "60s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written
