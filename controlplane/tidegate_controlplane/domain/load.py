"""What was asked lately: from counters that only grow to rates. Time is an argument.

A rate over minutes follows a rush too late, and one over seconds takes noise for a rush. Arrivals
of independent callers scatter by the square root of their number, so the longest window holds until
a shorter one is further from it than chance explains: an adaptive window, as in ADWIN (Bifet and
Gavaldà, 2007), with four fixed lengths.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

from tidegate_controlplane.domain.capacity import Sample

WINDOWS = ((300.0, 0.0), (60.0, 3.0), (12.0, 4.0), (3.0, 5.0))
"""Seconds, and the standard deviations from the expected count at which a window is believed: more
for the shorter ones, which have more chances to be wrong."""
SPACING_S = 1.0
STRETCH_S = 30.0
"""Long enough that requests that began or ended at its edges matter little."""
FADE = 0.95
"""Of what earlier stretches asked, with each new one."""


@dataclass(frozen=True)
class Reading:
    """Counters of one deployment at one moment; arrivals and tokens since its process began."""

    now_s: float
    in_flight: int
    ready: int
    arrivals: int = 0
    arrived_tokens: int = 0
    done_tokens: float = 0.0
    """Finished, and half of those on replicas: a request is in the middle of its way on average."""


@dataclass
class LoadWindow:
    """The readings of five minutes, a second apart or more, and a stretch to learn from."""

    readings: deque[Reading] = field(default_factory=deque)
    learned: Reading | None = None
    """The reading at which the present stretch began."""
    busy_s: float = 0.0
    """Request-seconds in flight on replicas within the stretch."""
    ready_s: float = 0.0
    """Replica-seconds ready within the stretch."""
    requests: float = 0.0
    """Arrived in earlier stretches, older ones fading, and their tokens."""
    tokens: float = 0.0

    def see(self, reading: Reading) -> Sample | None:
        """Note a reading; a sample when a stretch of `STRETCH_S` is over.

        Counters that fell have begun anew, and so does everything here.
        """
        last = self.readings[-1] if self.readings else None
        if last is None or self.learned is None or reading.arrivals < last.arrivals:
            self.readings = deque([reading])
            self._begin_stretch(reading)
            return None
        passed_s = reading.now_s - last.now_s
        if passed_s < SPACING_S:
            return None
        self.readings.append(reading)
        while len(self.readings) > 2 and reading.now_s - self.readings[1].now_s >= WINDOWS[0][0]:
            self.readings.popleft()
        self.busy_s += passed_s * (last.in_flight + reading.in_flight) / 2
        self.ready_s += passed_s * (last.ready + reading.ready) / 2
        return self._stretch(self.learned, reading)

    @property
    def arrivals_per_s(self) -> float:
        """Requests a second over the longest window that the shorter ones do not contradict."""
        rate = 0.0
        for window_s, surprise in WINDOWS:
            count, seconds = self._arrived(window_s)
            expected = rate * seconds
            if abs(count - expected) > surprise * math.sqrt(max(1.0, expected)):
                rate = count / seconds
        return rate

    @property
    def tokens_per_request(self) -> float:
        """Prompt and output of one request, older ones fading; 0 when none were counted."""
        if not self.readings or not self.learned:
            return 0.0
        now, then = self.readings[-1], self.learned
        requests = self.requests + now.arrivals - then.arrivals
        tokens = self.tokens + now.arrived_tokens - then.arrived_tokens
        return tokens / requests if requests else 0.0

    def _arrived(self, window_s: float) -> tuple[int, float]:
        """Requests since the last reading before the window, and the seconds since then.

        Nothing came before the first reading: what was seen since is all of a longer window.
        """
        if not self.readings:
            return 0, window_s
        last = self.readings[-1]
        place = bisect_right(self.readings, last.now_s - window_s, key=lambda r: r.now_s)
        first = self.readings[max(0, place - 1)]
        return last.arrivals - first.arrivals, max(window_s, last.now_s - first.now_s)

    def _stretch(self, first: Reading, last: Reading) -> Sample | None:
        """What one replica did on average, when the stretch is over and one was ready."""
        seconds = last.now_s - first.now_s
        if seconds < STRETCH_S:
            return None
        done = last.done_tokens - first.done_tokens
        busy_s, ready_s = self.busy_s, self.ready_s
        self.requests = self.requests * FADE + last.arrivals - first.arrivals
        self.tokens = self.tokens * FADE + last.arrived_tokens - first.arrived_tokens
        self._begin_stretch(last)
        if ready_s < seconds / 2:
            return None
        return Sample(seconds, busy_s / ready_s, done * seconds / ready_s)

    def _begin_stretch(self, reading: Reading) -> None:
        self.learned, self.busy_s, self.ready_s = reading, 0.0, 0.0
