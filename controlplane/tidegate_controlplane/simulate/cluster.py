"""A discrete-event model of replicas behind one queue, driven by an autoscaling policy.

A request takes a slot of the least busy ready replica, or waits in one queue for the next free one;
it fails when it has waited for `hold_s`. A replica costs its seconds from the request for it to the
end of its drain. Surplus replicas are those that start, then the least busy; a drain cuts nothing.
The model is the same for every policy, and nothing in it is random.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from itertools import pairwise

from tidegate_controlplane.simulate.policies.base import Observed, Policy
from tidegate_controlplane.simulate.replica import SimReplica, Speed
from tidegate_controlplane.simulate.trace import Arrival


@dataclass(frozen=True)
class ClusterSpec:
    """What every policy works with."""

    speed: Speed = field(default_factory=Speed)
    max_replicas: int = 50
    hold_s: float = 300.0
    """A request that waited so long fails."""


@dataclass
class Run:
    """What became of a trace under one policy."""

    waits_s: list[float] = field(default_factory=list)
    """To the first token, of each request answered."""
    failed: int = 0
    replica_s: float = 0.0
    cold_starts: int = 0
    desired: list[tuple[float, int]] = field(default_factory=list)
    """Every change of the desired count, and when."""

    @property
    def flaps(self) -> int:
        """How often the desired count changed its direction."""
        counts = [count for _, count in self.desired]
        rises = [after > before for before, after in pairwise(counts)]
        return sum(now is not then for then, now in pairwise(rises))


class _Kind(IntEnum):
    """In the order in which events of one moment are handled."""

    END = 0
    READY = 1
    ARRIVAL = 2
    TICK = 3


def simulate(trace: Sequence[Arrival], policy: Policy, spec: ClusterSpec) -> Run:
    """Run a whole trace, and on until every request has ended."""
    return _Cluster(trace, policy, spec).run()


class _Cluster:
    def __init__(self, trace: Sequence[Arrival], policy: Policy, spec: ClusterSpec) -> None:
        self._trace, self._policy, self._spec = trace, policy, spec
        self._now_s = 0.0
        self._events: list[tuple[float, _Kind, int, int]] = []
        self._replicas: dict[int, SimReplica] = {}
        self._queue: deque[tuple[int, Arrival]] = deque()
        self._seen = Observed(slots=spec.speed.slots, cold_start_s=spec.speed.cold_start_s)
        self._started = 0
        self._run = Run()

    def run(self) -> Run:
        self._scale(self._policy.minimum)
        self._push(0.0, _Kind.TICK)
        if self._trace:
            self._push(self._trace[0].at_s, _Kind.ARRIVAL)
        while self._events:
            at_s, kind, key, epoch = heappop(self._events)
            self._pass(at_s)
            self._handle(kind, key, epoch)
        return self._run

    def _handle(self, kind: _Kind, key: int, epoch: int) -> None:
        if kind is _Kind.ARRIVAL:
            self._arrive(key)
        elif kind is _Kind.TICK:
            self._tick()
        elif replica := self._replicas.get(key):
            if kind is _Kind.READY:
                replica.ready = True
                self._fill()
            elif replica.epoch == epoch:
                self._end(replica)

    def _push(self, at_s: float, kind: _Kind, key: int = 0, epoch: int = 0) -> None:
        heappush(self._events, (at_s, kind, key, epoch))

    def _pass(self, at_s: float) -> None:
        """Add up what the time since the last event cost and carried."""
        passed_s = at_s - self._now_s
        self._run.replica_s += passed_s * len(self._replicas)
        self._seen.request_s += passed_s * (self._seen.in_flight + len(self._queue))
        self._now_s = at_s

    def _arrive(self, number: int) -> None:
        arrival = self._trace[number]
        self._seen.arrivals += 1
        self._seen.arrived_tokens += arrival.tokens
        self._seen.held_tokens += arrival.tokens
        self._queue.append((number, arrival))
        self._fill()
        if self._queue and not self._seen.ready:
            self._decide()
        if number + 1 < len(self._trace):
            self._push(self._trace[number + 1].at_s, _Kind.ARRIVAL, number + 1)

    def _fill(self) -> None:
        """Give waiting requests to free slots, the oldest first."""
        while self._queue:
            number, arrival = self._queue[0]
            waited_s = self._now_s - arrival.at_s
            if waited_s <= self._spec.hold_s:
                replica = max(self._replicas.values(), key=_most_free, default=None)
                if replica is None or not replica.free:
                    return
                prompt_s = arrival.prompt_tokens / self._spec.speed.prompt_tokens_per_s
                self._run.waits_s.append(waited_s + prompt_s)
                self._take(replica, number, arrival)
            else:
                self._run.failed += 1
            self._queue.popleft()
            self._seen.held_tokens -= arrival.tokens

    def _take(self, replica: SimReplica, number: int, arrival: Arrival) -> None:
        replica.take(number, arrival, self._now_s)
        self._seen.in_flight += 1
        self._seen.in_flight_tokens += arrival.tokens
        self._push(replica.next_end_s, _Kind.END, replica.number, replica.epoch)

    def _end(self, replica: SimReplica) -> None:
        arrival = replica.finish(self._now_s)
        self._seen.in_flight -= 1
        self._seen.in_flight_tokens -= arrival.tokens
        self._seen.finished_tokens += arrival.tokens
        self._seen.last_end_s = self._now_s
        if replica.running:
            self._push(replica.next_end_s, _Kind.END, replica.number, replica.epoch)
        elif replica.draining:
            del self._replicas[replica.number]
        self._fill()

    def _tick(self) -> None:
        self._fill()
        self._decide()
        over = self._seen.arrivals == len(self._trace)
        if over and not self._queue and not self._seen.in_flight:
            self._events.clear()
        else:
            self._push(self._now_s + self._policy.interval_s, _Kind.TICK)

    def _decide(self) -> None:
        live = [replica for replica in self._replicas.values() if not replica.draining]
        seen = self._seen
        seen.now_s, seen.held = self._now_s, len(self._queue)
        seen.ready = sum(replica.ready for replica in live)
        seen.starting_ages_s = tuple(
            self._now_s - replica.requested_s for replica in live if not replica.ready
        )
        seen.desired = self._run.desired[-1][1] if self._run.desired else 0
        self._scale(min(self._policy.desired(seen), self._spec.max_replicas))

    def _scale(self, desired: int) -> None:
        if desired != (self._run.desired[-1][1] if self._run.desired else None):
            self._run.desired.append((self._now_s, desired))
        live = [replica for replica in self._replicas.values() if not replica.draining]
        for _ in range(desired - len(live)):
            self._start()
        surplus = sorted(live, key=lambda r: (r.ready, len(r.running), -r.number))
        for replica in surplus[: max(0, len(live) - desired)]:
            replica.draining = True
            if not replica.running:
                del self._replicas[replica.number]
        self._seen.ready = sum(r.ready and not r.draining for r in self._replicas.values())

    def _start(self) -> None:
        self._started += 1
        replica = SimReplica(self._started, self._spec.speed, self._now_s, at_s=self._now_s)
        self._replicas[replica.number] = replica
        self._run.cold_starts += 1
        self._push(self._now_s + self._spec.speed.cold_start_s, _Kind.READY, replica.number)


def _most_free(replica: SimReplica) -> tuple[int, float]:
    return replica.free, -replica.number if replica.free else -math.inf
