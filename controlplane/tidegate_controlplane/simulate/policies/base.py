"""What a policy sees, and what it answers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class Observed:
    """The cluster at one moment, with counters since the start of the run.

    Each policy reads what the system that it stands for would measure.
    """

    slots: int
    """Requests one replica runs at once: the hard limit of its concurrency."""
    cold_start_s: float
    now_s: float = 0.0
    in_flight: int = 0
    held: int = 0
    """Requests that wait for a slot."""
    ready: int = 0
    starting_ages_s: tuple[float, ...] = ()
    desired: int = 0
    """The present one."""
    last_end_s: float | None = None
    request_s: float = 0.0
    """Request-seconds so far, held and in flight: its growth over a window is the mean concurrency.
    """
    held_tokens: int = 0
    in_flight_tokens: int = 0
    arrivals: int = 0
    arrived_tokens: int = 0
    finished_tokens: int = 0


class Policy(Protocol):
    """An autoscaler: asked every `interval_s`, and when a request finds no ready replica."""

    name: str
    interval_s: float
    minimum: int
    """Replicas at the start, and the fewest ever."""

    def desired(self, seen: Observed) -> int:
        """How many replicas there should be now."""
        ...


@dataclass
class Mean:
    """Means over sliding windows, from a total that only grows."""

    longest_s: float
    points: deque[tuple[float, float]] = field(default_factory=lambda: deque([(0.0, 0.0)]))

    def see(self, now_s: float, total: float) -> None:
        if now_s > self.points[-1][0]:
            self.points.append((now_s, total))
        while len(self.points) > 2 and now_s - self.points[1][0] >= self.longest_s:
            self.points.popleft()

    def over(self, window_s: float) -> float:
        """Growth a second over the window, or since the start where that is shorter."""
        last_s, total = self.points[-1]
        within = (point for point in reversed(self.points) if last_s - point[0] >= window_s)
        first_s, before = next(within, self.points[0])
        return (total - before) / (last_s - first_s) if last_s > first_s else 0.0
