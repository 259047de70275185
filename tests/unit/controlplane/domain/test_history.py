"""The autoscaler over time: what it learns from what it sees, and decides with it."""

from __future__ import annotations

from dataclasses import replace

from tidegate_controlplane.domain.autoscale import Term
from tidegate_controlplane.domain.history import PRICE, History, Policy, Sight

POLICY = Policy(min_replicas=0, max_replicas=10, max_sequences=16)
SIGHT = Sight(
    now_s=0.0,
    in_flight=0,
    held=0,
    queued=0,
    idle_s=None,
    ready=0,
    starting_ages_s=(),
    cold_start_s=20.0,
)


def busy(now_s: float, **fields: object) -> Sight:
    """A second of a replica that finishes 160 tokens each, of requests of 100."""
    done = int(now_s * 160)
    seen = replace(
        SIGHT,
        now_s=now_s,
        in_flight=8,
        idle_s=0.0,
        ready=1,
        arrivals=int(now_s * 1.6),
        arrived_tokens=done,
        finished_tokens=done,
    )
    return replace(seen, **fields)  # type: ignore[arg-type]


def test_what_a_replica_finishes_is_learned_from_what_it_does() -> None:
    history = History()
    for second in range(120):
        decision = history.decide(POLICY, busy(float(second)))
    signals = decision.signals
    assert signals.tokens_per_s is not None
    assert 250 < signals.tokens_per_s <= 330
    assert 90 < signals.tokens_per_request < 110
    assert 1.4 < signals.arrivals_per_s < 1.8


def test_half_of_what_is_on_replicas_counts_as_done() -> None:
    history = History()
    for second in range(61):
        sight = busy(float(second), finished_tokens=0, in_flight_tokens=320 * second)
        decision = history.decide(POLICY, sight)
    assert decision.signals.tokens_per_s is not None
    assert 250 < decision.signals.tokens_per_s <= 330


def test_a_starting_replica_is_expected_after_the_usual_cold_start() -> None:
    decision = History().decide(POLICY, replace(SIGHT, held=1, starting_ages_s=(5.0, 30.0)))
    assert decision.signals.starting == (15.0, 0.0)


def test_work_that_is_pulled_from_a_queue_has_no_rate_of_arrival() -> None:
    for policy, queued in ((replace(POLICY, durable=True), 0), (POLICY, 5)):
        history = History()
        for second in range(120):
            decision = history.decide(policy, busy(float(second), queued=queued))
        assert decision.signals.arrivals_per_s == 0.0


def test_a_declared_idle_time_stands_and_auto_is_the_price_of_a_cold_start_at_first() -> None:
    quiet = replace(SIGHT, idle_s=30.0, ready=1)
    declared = History().decide(replace(POLICY, idle_timeout_s=7.0), quiet)
    assert declared.bounds.idle_timeout_s == 7.0
    assert History().decide(POLICY, quiet).bounds.idle_timeout_s == PRICE * 20.0
    priced = replace(POLICY, cold_start_price_s=40.0)
    assert History().decide(priced, quiet).bounds.idle_timeout_s == 40.0


def test_replicas_that_were_called_for_are_kept_for_a_while_after() -> None:
    history = History()
    history.decide(POLICY, replace(SIGHT, held=100, idle_s=0.0))
    later = replace(SIGHT, now_s=50.0, in_flight=1, idle_s=0.0, ready=4)
    kept = history.decide(POLICY, later)
    assert (kept.desired, kept.term) == (4, Term.KEPT)
    gone = history.decide(POLICY, replace(later, now_s=50.0 + PRICE * 20.0))
    assert (gone.desired, gone.term) == (1, Term.WORK)


def test_requests_that_wait_for_memory_lower_what_a_replica_is_taken_to_carry() -> None:
    history = History()
    full = busy(1.0, kv_used=0.95, kv_waiting=3)
    assert history.decide(POLICY, full).signals.slots == 5.0
    assert History().decide(POLICY, busy(1.0, kv_waiting=3)).signals.slots == 16.0
