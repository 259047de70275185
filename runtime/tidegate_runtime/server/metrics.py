"""What a replica counts, in Prometheus' words. Each replica has its own registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
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
        self._tokens = Counter(
            "tidegate_tokens",
            "Tokens of prompts taken in and of answers generated.",
            ("kind",),
            registry=self.registry,
        )
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
        self._tokens.labels("prompt").inc(count)

    def generated_token(self) -> None:
        """Count one generated token."""
        self._tokens.labels("generated").inc()

    def first_token(self, seconds: float) -> None:
        """Record the wait for a request's first token."""
        self._first_token.observe(seconds)

    def step(self, seconds: float, prompt_tokens: int, preempted: int) -> None:
        """Record one engine step (the engine's observer)."""
        self._steps.observe(seconds)
        self._prefilled.inc(prompt_tokens)
        self._preemptions.inc(preempted)

    def gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a number that is read when it is asked for."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """Every number in Prometheus' text format."""
        return generate_latest(self.registry)
