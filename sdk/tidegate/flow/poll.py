"""Ask again until it is so, a little less often each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tidegate.errors import WaitTimeout
from tidegate.flow.steps import Flow, Sleep, now

T = TypeVar("T")
FIRST_INTERVAL_S = 0.1
LONGEST_INTERVAL_S = 2.0
GROWTH = 1.4


def poll(
    fetch: Callable[[], Flow[T]],
    is_done: Callable[[T], bool],
    describe: Callable[[T], tuple[str, str]],
    *,
    timeout_s: float | None,
    on_change: Callable[[T], None] | None = None,
) -> Flow[T]:
    """Fetch until `is_done`, which may also raise; None as `timeout_s` waits for ever.

    `describe` names the thing and its state for WaitTimeout. `on_change` sees the first value and
    each one that differs from the one before.
    """
    began_s = yield from now()
    interval_s, seen = FIRST_INTERVAL_S, None
    while True:
        value = yield from fetch()
        if on_change is not None and value != seen:
            on_change(value)
        seen = value
        if is_done(value):
            return value
        left_s = _left_s(timeout_s, (yield from now()) - began_s)
        if left_s <= 0:
            raise WaitTimeout(*describe(value), timeout_s or 0.0)
        yield Sleep(min(interval_s, left_s))
        interval_s = min(interval_s * GROWTH, LONGEST_INTERVAL_S)


def _left_s(timeout_s: float | None, passed_s: float) -> float:
    return float("inf") if timeout_s is None else timeout_s - passed_s
