"""What a replica counts, in Prometheus' words. Each replica has its own registry.

What vLLM has a name for goes by that name, with its label `model_name` and its buckets, so that
dashboards and autoscalers made for vLLM work (docs/decisions/060; the names are those of
vllm/v1/metrics/loggers.py). As there, a request with several choices counts as several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tidegate_runtime.server.histogram import WeightedHistogram

if TYPE_CHECKING:  # the engine imports torch, and counting begins before that
    from tidegate_runtime.engine.sequence import Sequence as EngineSequence
    from tidegate_runtime.engine.step import StepReport
    from tidegate_runtime.engine.timeline import Ending

_STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# fmt: off
_FIRST_TOKEN_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
_NEXT_TOKEN_BUCKETS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)
_REQUEST_BUCKETS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
)
_STEP_TOKENS_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# fmt: on
_ENDINGS: tuple[Ending, ...] = ("stop", "length", "abort", "error")
_FINISHED = frozenset({"stop", "length"})


class Metrics:
    """The counters of one replica; safe to use from any thread. Observes the engine."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._model_name = model_name
        self._requests = Counter(
            "tidegate_requests",
            "Requests answered, by endpoint and HTTP status.",
            ("endpoint", "status"),
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
        self._adapter_loads = Counter(
            "tidegate_adapter_loads",
            "Adapters read into memory.",
            registry=self.registry,
        )
        self._adapter_evictions = Counter(
            "tidegate_adapter_evictions",
            "Adapters that made room for others.",
            registry=self.registry,
        )
        self._count_tokens()
        self._time_requests()

    def _count_tokens(self) -> None:
        self._prompts = self.counter("prompt_tokens", "Tokens of prompts that were run.")
        self._generated = self.counter("generation_tokens", "Tokens generated.")
        self._preemptions = self.counter(
            "num_preemptions", "Sequences that lost their cache blocks and were computed again."
        )
        self._queries = self.counter(
            "prefix_cache_queries", "Tokens of sequences that began, looked for in the cache."
        )
        self._hits = self.counter("prefix_cache_hits", "Those of them that were found.")
        self._drafted = self.counter("spec_decode_num_draft_tokens", "Tokens guessed.")
        self._accepted = self.counter(
            "spec_decode_num_accepted_tokens", "Those of them that the model agreed with."
        )
        self._step_tokens = self._histogram(
            "iteration_tokens_total", "Tokens of one engine step.", _STEP_TOKENS_BUCKETS
        )

    def _time_requests(self) -> None:
        self._first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            _FIRST_TOKEN_BUCKETS_S,
        )
        self._next_token = WeightedHistogram(
            "vllm:inter_token_latency_seconds",
            "From one step that gave a sequence tokens to the next one.",
            _NEXT_TOKEN_BUCKETS_S,
            self._model_name,
            self.registry,
        )
        self._whole, self._queued, self._prefill, self._decode = (
            self._histogram(name, description, _REQUEST_BUCKETS_S)
            for name, description in (
                ("e2e_request_latency_seconds", "From arrival to the last token."),
                ("request_queue_time_seconds", "From the engine's queue to its first step."),
                ("request_prefill_time_seconds", "From its first step to the first token."),
                ("request_decode_time_seconds", "From the first token to the last."),
            )
        )
        ended = Counter(
            "vllm:request_success",
            "Requests that ended, by how.",
            ("model_name", "finished_reason"),
            registry=self.registry,
        )
        self._ended = {ending: ended.labels(self._model_name, ending) for ending in _ENDINGS}

    def request(self, endpoint: str, status: int) -> None:
        """Count one answered request."""
        self._requests.labels(endpoint, str(status)).inc()

    def adapter_loaded(self) -> None:
        """Count an adapter that was read into memory."""
        self._adapter_loads.inc()

    def adapter_evicted(self) -> None:
        """Count an adapter that made room for another."""
        self._adapter_evictions.inc()

    def embedded(self, prompt_tokens: int, seconds: float) -> None:
        """Record a request for embeddings: `seconds` from its arrival to its vectors."""
        self._prompts.inc(prompt_tokens)
        self._whole.observe(seconds)
        self._ended["stop"].inc()

    def step(self, report: StepReport, waits: Mapping[float, int]) -> None:
        """Record one engine step, and how long how many sequences waited for tokens of it."""
        self._steps.observe(report.seconds)
        self._step_tokens.observe(report.prompt_tokens + report.generated_tokens)
        for seconds, sequences in waits.items():
            self._next_token.observe(seconds, sequences)
        for counter, count in (
            (self._generated, report.generated_tokens),
            (self._prefilled, report.prompt_tokens),
            (self._preemptions, report.preempted),
            (self._queries, report.hit_tokens + report.missed_tokens),
            (self._hits, report.hit_tokens),
            (self._drafted, report.drafted_tokens),
            (self._accepted, report.accepted_tokens),
        ):
            if count:
                counter.inc(count)

    def prefilled(self, sequence: EngineSequence) -> None:
        """Record a prompt that has been run, and the wait for its first token."""
        times = sequence.timeline
        self._prompts.inc(times.prompt_tokens)
        if sequence.output_tokens and times.first_token_s is not None:
            self._first_token.observe(times.first_token_s - times.arrived_s)

    def ended(self, sequence: EngineSequence) -> None:
        """Record how a sequence ended and, if it was finished, where its time went."""
        times = sequence.timeline
        assert times.ending is not None
        self._ended[times.ending].inc()
        if times.ending not in _FINISHED:
            return
        assert times.started_s is not None
        assert times.first_token_s is not None
        assert times.last_token_s is not None
        self._whole.observe(times.last_token_s - times.arrived_s)
        self._queued.observe(times.started_s - times.queued_s)
        self._prefill.observe(times.first_token_s - times.started_s)
        self._decode.observe(times.last_token_s - times.first_token_s)

    def gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a number that is read when it is asked for; vLLM's have the model's label."""
        if name.startswith("vllm:"):
            made = Gauge(name, description, ("model_name",), registry=self.registry)
            made.labels(self._model_name).set_function(read)
        else:
            Gauge(name, description, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """Every number in Prometheus' text format."""
        return generate_latest(self.registry)

    def counter(self, name: str, description: str) -> Counter:
        """Register a counter that vLLM has too."""
        made = Counter(f"vllm:{name}", description, ("model_name",), registry=self.registry)
        return made.labels(self._model_name)

    def _histogram(self, name: str, description: str, buckets: Sequence[float]) -> Histogram:
        made = Histogram(
            f"vllm:{name}", description, ("model_name",), buckets=buckets, registry=self.registry
        )
        return made.labels(self._model_name)
