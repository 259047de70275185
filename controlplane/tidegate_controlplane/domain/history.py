"""What the autoscaler remembers of one deployment, and what it makes of it. Time is an argument.

The reconciler keeps one for each deployment, the simulator one for each run: the same code.
Losing it costs nothing but patience, since everything in it is learned again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate_controlplane.domain.autoscale import FULL_KV, Bounds, Decision, Signals, decide
from tidegate_controlplane.domain.capacity import Capacity
from tidegate_controlplane.domain.keep_alive import KeepAlive
from tidegate_controlplane.domain.load import LoadWindow, Reading

DEFAULT_COLD_START_S = 10.0
"""Expected before one was measured."""
PRICE = 5.0
"""Of a cold start when none is declared, in its own lengths: the replica-seconds of the start, and
four times as much for those who wait for it."""


@dataclass(frozen=True)
class Policy:
    """What is declared of scaling, before the moment and the history come in."""

    min_replicas: int
    max_replicas: int
    max_sequences: int
    """Sequences that one replica is started with."""
    clear_s: float = 10.0
    """Seconds that a backlog may last once the replicas called for are ready."""
    target_in_flight: int | None = None
    idle_timeout_s: float | None = None
    """None for `auto`: as long as the gaps measured make it worth while."""
    durable: bool = False
    """Work is pulled from a queue as fast as it is served: what arrives says nothing of demand."""
    cold_start_price_s: float | None = None
    """Replica-seconds that one cold start is worth avoiding; None for `PRICE` cold starts."""


@dataclass(frozen=True)
class Sight:
    """What is seen of a deployment in one pass."""

    now_s: float
    in_flight: int
    held: int
    queued: int
    idle_s: float | None
    ready: int
    starting_ages_s: tuple[float, ...]
    """How long ago each replica that starts was requested."""
    cold_start_s: float | None = None
    """Measured, or predicted by the plan."""
    held_tokens: int = 0
    queued_tokens: int = 0
    oldest_queued_s: float = 0.0
    in_flight_tokens: int = 0
    arrivals: int = 0
    arrived_tokens: int = 0
    finished_tokens: int = 0
    kv_used: float = 0.0
    kv_waiting: int = 0
    scheduled_min: int = 0


@dataclass
class History:
    """Recent rates, what a replica carries, and how often each one was needed."""

    load: LoadWindow = field(default_factory=LoadWindow)
    capacity: Capacity = field(default_factory=Capacity)
    keep_alive: KeepAlive = field(default_factory=KeepAlive)
    seen_s: float | None = None

    def decide(self, policy: Policy, sight: Sight) -> Decision:
        """Learn from what is seen, decide, and remember what was called for."""
        self._learn(policy, sight)
        cold_start_s = sight.cold_start_s or DEFAULT_COLD_START_S
        price_s = policy.cold_start_price_s
        price_s = PRICE * cold_start_s if price_s is None else price_s
        bounds = self._bounds(policy, sight, price_s)
        decision = decide(bounds, self._signals(policy, sight, cold_start_s, price_s))
        self.keep_alive.see(min(decision.called_for, policy.max_replicas), sight.now_s)
        return decision

    def _learn(self, policy: Policy, sight: Sight) -> None:
        passed_s = 0.0 if self.seen_s is None else sight.now_s - self.seen_s
        self.seen_s = sight.now_s
        sample = self.load.see(
            Reading(
                now_s=sight.now_s,
                in_flight=sight.in_flight,
                ready=sight.ready,
                arrivals=sight.arrivals,
                arrived_tokens=sight.arrived_tokens,
                done_tokens=sight.finished_tokens + sight.in_flight_tokens / 2,
            )
        )
        if sample:
            self.capacity = self.capacity.learn(sample)
        # Without pressure on the cache a request that waits has only just arrived.
        waiting = sight.kv_waiting if sight.ready and sight.kv_used >= FULL_KV else 0
        running = (sight.in_flight - waiting) / max(1, sight.ready)
        self.capacity = self.capacity.pressed(running, waiting, policy.max_sequences, passed_s)

    def _bounds(self, policy: Policy, sight: Sight, price_s: float) -> Bounds:
        idle_timeout_s = policy.idle_timeout_s
        if idle_timeout_s is None:
            idle_timeout_s = self.keep_alive.first_keep_alive_s(price_s)
        return Bounds(
            min_replicas=policy.min_replicas,
            max_replicas=policy.max_replicas,
            target_in_flight=policy.target_in_flight,
            idle_timeout_s=idle_timeout_s,
            clear_s=policy.clear_s,
            scheduled_min=sight.scheduled_min,
        )

    def _signals(
        self, policy: Policy, sight: Sight, cold_start_s: float, price_s: float
    ) -> Signals:
        slots = self.capacity.slots(policy.max_sequences)
        pulled = policy.durable or sight.queued > 0
        return Signals(
            in_flight=sight.in_flight,
            held=sight.held,
            queued=sight.queued,
            idle_s=sight.idle_s,
            ready=sight.ready,
            starting=tuple(max(0.0, cold_start_s - age_s) for age_s in sight.starting_ages_s),
            cold_start_s=cold_start_s,
            slots=slots,
            arrivals_per_s=0.0 if pulled else self.load.arrivals_per_s,
            tokens_per_request=self.load.tokens_per_request,
            held_tokens=sight.held_tokens,
            queued_tokens=sight.queued_tokens,
            oldest_queued_s=sight.oldest_queued_s,
            tokens_per_s=self.capacity.tokens_per_s(slots),
            kv_used=sight.kv_used,
            kv_waiting=sight.kv_waiting,
            kept=self.keep_alive.kept(price_s, sight.now_s),
        )
