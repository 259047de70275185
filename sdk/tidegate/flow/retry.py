"""When to try again, and after how long.

A request is sent again when the connection was never made; when it broke and repeating is harmless
(an idempotent method, or an Idempotency-Key); on 429; and on 502, 503 or 504 when the server says
with `Retry-After` that waiting helps. Nothing is repeated once the first byte of a stream arrived.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from tidegate.errors import APIError, ConnectionFailed, TidegateError
from tidegate.flow.failures import failure
from tidegate.flow.steps import Flow, Reply, Request, Sleep

T = TypeVar("T")
S = TypeVar("S")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
JITTER = 0.25
WAITABLE = frozenset({502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_retries` further attempts. `chance` gives a number in [0, 1)."""

    max_retries: int = 2
    chance: Callable[[], float] = random.random

    def delay_s(self, error: TidegateError, request: Request, retries: int) -> float | None:
        """Seconds to wait before the next attempt, None when there should be none.

        The server's own `Retry-After` when it gives one of at most a minute, otherwise 0.5 s
        doubled with each retry up to 8 s, less up to a quarter by chance.
        """
        if retries >= self.max_retries or not _is_passing(error, request):
            return None
        asked_s = error.retry_after_s if isinstance(error, APIError) else None
        if asked_s is not None:
            return asked_s if asked_s <= LONGEST_RETRY_AFTER_S else None
        grown_s = min(FIRST_DELAY_S * 2.0**retries, LONGEST_DELAY_S)
        return grown_s * (1.0 - JITTER * self.chance())


def with_retries(flow: Generator[S, Any, T], policy: RetryPolicy) -> Generator[S, Any, T]:
    """The same flow, each of its requests tried as the policy allows; error answers are raised."""
    answer: Any = None
    error: TidegateError | None = None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as done:
            value: T = done.value
            return value
        answer, error = None, None
        try:
            if isinstance(step, Request):
                answer = yield from attempt(step, policy)  # type: ignore[misc]
            else:
                answer = yield step
        except TidegateError as raised:
            error = raised


def attempt(request: Request, policy: RetryPolicy) -> Flow[Reply]:
    """Send until there is a good reply or no reason to hope; raises the last error."""
    retries = 0
    while True:
        try:
            reply: Reply = yield request
            if reply.status < 400:
                return reply
            error: TidegateError = failure(reply)
        except ConnectionFailed as lost:
            error = lost
        delay_s = policy.delay_s(error, request, retries)
        if delay_s is None:
            raise error
        yield Sleep(delay_s)
        retries += 1


def _is_passing(error: TidegateError, request: Request) -> bool:
    """Whether the same request may succeed a little later, without harm."""
    if isinstance(error, ConnectionFailed):
        return request.may_repeat or not error.sent
    if isinstance(error, APIError):
        waiting_helps = error.status in WAITABLE and error.retry_after_s is not None
        return error.status == 429 or waiting_helps
    return False
