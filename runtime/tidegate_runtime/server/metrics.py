"""What a replica counts, in Prometheus' words. Each replica has its own registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:  # the engine imports torch, and counting begins before that
    from tidegate_runtime.engine.step import StepReport

_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FIRST_TOKEN_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one replica; safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tidegate_requests",
            "Requests answered, by endpoint and HTTP status.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        tokens = Counter(
            "tidegate_tokens",
            "Tokens of prompts taken in and of answers generated.",
            ("kind",),
            registry=self.registry,
        )
        self._taken_in = tokens.labels("prompt")
        self._generated = tokens.labels("generated")
        self._steps = Histogram(
            "tidegate_step_seconds",
            "How long one engine step takes.",
            buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )
        self._prefilled = Counter(
            "tidegate_prefilled_tokens",
            "Tokens run as prefill, recomputed ones included.",
            registry=self.registry,
        )
        self._preemptions = Counter(
            "tidegate_preemptions",
            "Sequences that lost their cache blocks and were computed again.",
            registry=self.registry,
        )
        prefix = Counter(
            "tidegate_prefix_cache_tokens",
            "Tokens of sequences that began, found in the prefix cache (hit) or not (miss).",
            ("result",),
            registry=self.registry,
        )
        self._hits, self._misses = prefix.labels("hit"), prefix.labels("miss")
        drafts = Counter(
            "tidegate_draft_tokens",
            "Tokens guessed by speculation, and those of them that the model agreed with.",
            ("result",),
            registry=self.registry,
        )
        self._drafted, self._accepted = drafts.labels("drafted"), drafts.labels("accepted")
        self._first_token = Histogram(
            "tidegate_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=self.registry,
        )

    def request(self, endpoint: str, status: int) -> None:
        """Count one answered request."""
        self._requests.labels(endpoint, str(status)).inc()

    def prompt_tokens(self, count: int) -> None:
        """Count tokens taken in."""
        self._taken_in.inc(count)

    def first_token(self, seconds: float) -> None:
        """Record the wait for a request's first token."""
        self._first_token.observe(seconds)

    def step(self, report: StepReport) -> None:
        """Record one engine step (the engine's observer)."""
        self._steps.observe(report.seconds)
        for counter, count in (
            (self._generated, report.generated_tokens),
            (self._prefilled, report.prompt_tokens),
            (self._preemptions, report.preempted),
            (self._hits, report.hit_tokens),
            (self._misses, report.missed_tokens),
            (self._drafted, report.drafted_tokens),
            (self._accepted, report.accepted_tokens),
        ):
            if count:
                counter.inc(count)

    def gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a number that is read when it is asked for."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """Every number in Prometheus' text format."""
        return generate_latest(self.registry)
