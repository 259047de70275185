"""This platform's autoscaler: the code that the reconciler runs, nothing of it written twice."""

from __future__ import annotations

from tidegate_controlplane.domain.history import History, Policy, Sight
from tidegate_controlplane.simulate.policies.base import Observed


class Tidegate:
    """From zero, with a pass each second."""

    name = "tidegate"
    interval_s = 1.0
    minimum = 0

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._history = History()

    def desired(self, seen: Observed) -> int:
        busy = seen.in_flight or seen.held
        idle_s = 0.0 if busy else None
        if not busy and seen.last_end_s is not None:
            idle_s = seen.now_s - seen.last_end_s
        sight = Sight(
            now_s=seen.now_s,
            in_flight=seen.in_flight,
            held=seen.held,
            queued=0,
            idle_s=idle_s,
            ready=seen.ready,
            starting_ages_s=seen.starting_ages_s,
            cold_start_s=seen.cold_start_s,
            held_tokens=seen.held_tokens,
            in_flight_tokens=seen.in_flight_tokens,
            arrivals=seen.arrivals,
            arrived_tokens=seen.arrived_tokens,
            finished_tokens=seen.finished_tokens,
        )
        return self._history.decide(self._policy, sight).desired
