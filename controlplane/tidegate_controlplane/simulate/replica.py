"""One replica of the model cluster: slots that share the speed of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from tidegate_controlplane.simulate.trace import Arrival


@dataclass(frozen=True)
class Speed:
    """How fast a replica decodes, and how long it takes to start."""

    slots: int = 16
    step_s: float = 0.03
    """A step for one sequence alone."""
    step_s_per_sequence: float = 0.001
    """More for each sequence in the batch."""
    prompt_tokens_per_s: float = 2000.0
    cold_start_s: float = 20.0

    def step(self, sequences: int) -> float:
        """Seconds of one step, in which each sequence gets a token."""
        return self.step_s + self.step_s_per_sequence * sequences

    def work(self, arrival: Arrival) -> float:
        """Steps that a request occupies a slot for: its output, and its prompt in whole steps."""
        prompt_s = arrival.prompt_tokens / self.prompt_tokens_per_s
        return arrival.output_tokens + prompt_s / self.step(1)


@dataclass
class SimReplica:
    """Requests in its slots, by the number of steps after which each is finished.

    All sequences of a batch advance together, so one number, the steps done so far, serves all.
    """

    number: int
    speed: Speed
    requested_s: float
    ready: bool = False
    draining: bool = False
    steps: float = 0.0
    at_s: float = 0.0
    running: list[tuple[float, int, Arrival]] = field(default_factory=list)
    epoch: int = 0
    """Raised by each change, so that an expected end that no longer holds is known."""

    @property
    def free(self) -> int:
        """Slots that a new request may take."""
        open_ = self.ready and not self.draining
        return self.speed.slots - len(self.running) if open_ else 0

    def advance(self, now_s: float) -> None:
        if self.running:
            self.steps += (now_s - self.at_s) / self.speed.step(len(self.running))
        self.at_s = now_s

    def take(self, number: int, arrival: Arrival, now_s: float) -> None:
        self.advance(now_s)
        heappush(self.running, (self.steps + self.speed.work(arrival), number, arrival))
        self.epoch += 1

    def finish(self, now_s: float) -> Arrival:
        """Take out the request that ends first."""
        self.advance(now_s)
        self.epoch += 1
        return heappop(self.running)[2]

    @property
    def next_end_s(self) -> float:
        """When the first of the running requests ends, if nothing changes."""
        left = max(0.0, self.running[0][0] - self.steps)
        return self.at_s + left * self.speed.step(len(self.running))
