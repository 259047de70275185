"""What becomes of a delivery after a try, and how long until the next one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

GONE = 410


@dataclass(frozen=True)
class Schedule:
    """How often a delivery is tried, and how far apart."""

    tries: int
    base_s: float
    """Between the first try and the second."""
    factor: float
    """From one pause to the next."""
    retry_after_max_s: float
    """A receiver may ask for a longer pause, up to this."""
    give_up_after_s: float
    """A webhook that has failed for so long is disabled."""


@dataclass(frozen=True)
class Tried:
    """One try: what the receiver answered; no status code when it did not."""

    status_code: int | None
    retry_after_s: float | None = None

    @property
    def succeeded(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True)
class Later:
    after_s: float


@dataclass(frozen=True)
class GivenUp:
    """No further try. With `disable`, nothing more is sent to this webhook: the reason."""

    disable: str | None = None


Verdict = Delivered | Later | GivenUp


def judge(
    tried: Tried, number: int, failing_s: float, schedule: Schedule, jitter: float
) -> Verdict:
    """After the `number`-th try (from 1) of a webhook that has failed for `failing_s`.

    `jitter` is random in [0, 1).
    """
    if tried.succeeded:
        return Delivered()
    if tried.status_code == GONE:
        return GivenUp(disable="the receiver answered 410 Gone")
    if number < schedule.tries:
        return Later(pause_s(number, tried.retry_after_s, schedule, jitter))
    if failing_s >= schedule.give_up_after_s:
        days = failing_s / 86_400
        return GivenUp(disable=f"every try has failed for {days:.1f} days")
    return GivenUp()


def pause_s(number: int, retry_after_s: float | None, schedule: Schedule, jitter: float) -> float:
    """Exponential in the tries so far, within a fifth of it, and never before Retry-After."""
    pause = schedule.base_s * schedule.factor ** (number - 1) * (0.8 + 0.4 * jitter)
    return max(pause, min(retry_after_s or 0.0, schedule.retry_after_max_s))


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that the header asks for: a number of them, or a date. None when it says neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def shares(
    waiting: Sequence[str], running: Mapping[str, int], room: int, each: int, after: str
) -> dict[str, int]:
    """How many deliveries each of the `waiting` webhooks may begin, `room` in all.

    No webhook gets more than `each` at once, and one at a time goes round from the one that follows
    `after`: a slow receiver, or one with a long backlog, holds up nobody else.
    """
    order = sorted(waiting, key=lambda one: (one <= after, one))
    taken = dict.fromkeys(order, 0)
    while room > 0:
        open_to_more = [one for one in order if running.get(one, 0) + taken[one] < each]
        if not open_to_more:
            break
        for one in open_to_more[:room]:
            taken[one] += 1
        room -= min(room, len(open_to_more))
    return {one: number for one, number in taken.items() if number}
