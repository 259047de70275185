"""How many guesses pay: from how often they were right and what more rows cost.

Everything here is a function of what was measured; nothing reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np

_STEP = 0.2
"""How much of an average a new measurement is."""
_MARGIN = 1.02
"""A plan must promise this much more than no plan."""
_PRIOR = 4.0
"""How many guesses an opinion from elsewhere is worth."""
_MEMORY = 32.0
"""About how many guesses a sequence is judged by."""
_STALE_STEPS = 1024
_FIRST_ROWS = 16

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class StepTimes:
    """What a step costs by its rows: running means at the row counts that occurred.

    Between two of them the cost is interpolated, beyond them it is that of the last. What was not
    measured for long is forgotten, so that one slow step is not believed for ever.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._measured: dict[int, int] = {}
        self._steps = 0

    def add(self, rows: int, seconds: float) -> None:
        """Take a measurement."""
        self._steps += 1
        known = self._seconds.get(rows, seconds)
        self._seconds[rows] = known + _STEP * (seconds - known)
        self._measured[rows] = self._steps
        if self._steps % _STALE_STEPS == 0:
            for old in [r for r, at in self._measured.items() if at <= self._steps - _STALE_STEPS]:
                del self._seconds[old], self._measured[old]

    @property
    def trusted_rows(self) -> int:
        """How large a step may be tried: twice the largest one known."""
        return max(_FIRST_ROWS, 2 * max(self._seconds, default=0))

    def of(self, rows: Many[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
        """The seconds of steps of so many rows; more rows never cost less."""
        known = sorted(self._seconds)
        if not known:
            return np.ones(len(rows))
        seconds = np.maximum.accumulate([self._seconds[row] for row in known])
        return np.interp(rows, known, seconds)


class Acceptance:
    """How often guesses were right: of one sequence, leaning on those of the same kind."""

    def __init__(self) -> None:
        self._kinds: dict[int, tuple[float, float]] = {}
        self._own: dict[int, tuple[float, float]] = {}

    def rate(self, sequence: int, kind: int) -> float:
        """The chance in (0, 1) that the next guess is right, if those before it were."""
        right, tried = self._kinds.get(kind, (0.0, 0.0))
        expected = (right + _PRIOR * 0.5) / (tried + _PRIOR)
        right, tried = self._own.get(sequence, (0.0, 0.0))
        return min(0.99, (right + _PRIOR * expected) / (tried + _PRIOR))

    def learn(self, sequence: int, kind: int, drafted: int, accepted: int) -> None:
        """Take the result of one step; what follows the first wrong guess was not tried."""
        tried = min(drafted, accepted + 1)
        for table, key in ((self._kinds, kind), (self._own, sequence)):
            right, before = table.get(key, (0.0, 0.0))
            keep = max(0.0, 1.0 - tried / _MEMORY)
            table[key] = (right * keep + accepted, before * keep + tried)

    def forget(self, sequence: int) -> None:
        """A sequence has ended."""
        self._own.pop(sequence, None)


def plan(
    rates: Many[float],
    limits: Many[int],
    decoding: int,
    times: StepTimes,
    draft_s: float,
    *,
    at_once: bool = False,
) -> list[int]:
    """How many guesses to run for each sequence that has some, so that tokens per second are most.

    Sequence i has up to `limits[i]` guesses, each right with chance `rates[i]`; `decoding`
    sequences give one token each without any. A level of guesses takes `draft_s` to make, or
    all of them together when they are made `at_once`.
    """
    levels = np.arange(1, max(limits) + 1)
    gains = np.power(np.array(rates)[:, None], levels)
    gains[levels > np.array(limits)[:, None]] = 0.0
    most = max(0, min(sum(limits), times.trusted_rows - decoding))
    order = np.argsort(-gains, axis=None, kind="stable")[:most]
    tokens = decoding + np.concatenate([[0.0], np.cumsum(gains.flat[order])])
    deepest = np.concatenate([[0], np.maximum.accumulate(order % len(levels) + 1)])
    drafting = draft_s * (np.minimum(deepest, 1) if at_once else deepest)
    seconds = times.of(decoding + np.arange(len(tokens))) + drafting
    speed = tokens / seconds
    best = int(np.argmax(speed))
    if speed[best] < _MARGIN * speed[0]:
        best = 0
    depths: list[int] = np.bincount(order[:best] // len(levels), minlength=len(rates)).tolist()
    return depths
