"""What the control plane counts, in Prometheus' words.

Requests to models go by the names of OpenTelemetry's GenAI conventions in their Prometheus spelling
(docs/decisions/061); what those have no name for is `tidegate_*`. Labels are names of deployments
and words of this code, never a key, a request or a text. Deployments of one name in several
projects count together.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tidegate_controlplane.gateway.endpoints import Demand

# The buckets that the GenAI conventions ask for.
_DURATION_BUCKETS_S = tuple(0.01 * 2**n for n in range(14))
# fmt: off
_FIRST_TOKEN_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)
# fmt: on
_TOKEN_BUCKETS = tuple(4**n for n in range(14))
_WAIT_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

Demands = Callable[[], Iterable[tuple[str, Demand]]]
"""What every deployment is asked for now, by its name."""


class Metrics:
    """The counters of one control plane; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.duration = self._histogram(
            "gen_ai_client_operation_duration_seconds",
            "From a request's arrival to the end of its answer.",
            (*_GEN_AI, "error_type"),
            _DURATION_BUCKETS_S,
        )
        self.first_token = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a streamed request's arrival, held or not, to its first event.",
            _GEN_AI,
            _FIRST_TOKEN_BUCKETS_S,
        )
        self.tokens = self._histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request.",
            (*_GEN_AI, "gen_ai_token_type"),
            _TOKEN_BUCKETS,
        )
        self.hold = self._histogram(
            "tidegate_hold_seconds",
            "How long requests waited that found no replica.",
            ("deployment",),
            _WAIT_BUCKETS_S,
        )
        self.refused = self._counter(
            "tidegate_hold_refused", "Requests that got no replica, by why.", "reason"
        )
        self.attempts = self._counter(
            "tidegate_attempts", "Requests given to a replica, by what came of it.", "outcome"
        )
        self.retries = self._counter("tidegate_retries", "Requests given to one more replica.")
        self._measure_replicas()

    def _measure_replicas(self) -> None:
        self.cold_start = self._histogram(
            "tidegate_cold_start_seconds",
            "From a replica's being wanted to its being ready.",
            ("deployment",),
            _WAIT_BUCKETS_S,
        )
        self.ejections = self._counter(
            "tidegate_replica_ejections",
            "Replicas that failed, by when and why.",
            "phase",
            "reason",
        )
        self.decisions = self._counter(
            "tidegate_scaling_decisions", "Decisions on replicas, by what decided.", "term"
        )
        self.replicas = self._gauge("tidegate_replicas", "Replicas, by phase.", "phase")
        self.desired = self._gauge("tidegate_desired_replicas", "Replicas there should be.")

    def watch_demand(self, demands: Demands) -> None:
        """Tell, whenever asked, what the gateway has in hand."""
        self.registry.register(_InHand(demands))

    def text(self) -> bytes:
        """Every number in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, ("deployment", *labels), registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(name, description, ("deployment", *labels), registry=self.registry)

    def _histogram(
        self, name: str, description: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)


class _InHand(Collector):
    def __init__(self, demands: Demands) -> None:
        self._demands = demands

    def collect(self) -> Iterable[GaugeMetricFamily]:
        held, in_flight = Tally[str](), Tally[str]()
        for name, demand in self._demands():
            held[name] += demand.held
            in_flight[name] += demand.in_flight
        yield _family("tidegate_requests_held", "Requests that wait for a replica.", held)
        yield _family("tidegate_requests_in_flight", "Requests now on replicas.", in_flight)


def _family(name: str, description: str, counts: Tally[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, description, labels=["deployment"])
    for deployment, count in counts.items():
        family.add_metric([deployment], count)
    return family
