"""Every policy over every trace and seed, and the median of what came out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tidegate_controlplane.domain.history import Policy as TidegatePolicy
from tidegate_controlplane.errors import BadTrace
from tidegate_controlplane.simulate.cluster import ClusterSpec, Run, simulate
from tidegate_controlplane.simulate.policies.base import Policy
from tidegate_controlplane.simulate.policies.knative_kpa import KnativeKpa
from tidegate_controlplane.simulate.policies.ray_serve import RayServe
from tidegate_controlplane.simulate.policies.sagemaker import SageMaker
from tidegate_controlplane.simulate.policies.tidegate import Tidegate
from tidegate_controlplane.simulate.synthetic import is_synthetic, synthesize
from tidegate_controlplane.simulate.trace import Arrival, read_trace

POLICIES = ("tidegate", "knative-kpa", "ray-serve", "sagemaker")


@dataclass(frozen=True)
class Experiment:
    """What is compared, on which cluster."""

    traces: tuple[str, ...]
    policies: tuple[str, ...] = POLICIES
    seeds: tuple[int, ...] = (1,)
    slo_s: float = 2.0
    """A request is within the objective when its first token comes this soon."""
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    idle_timeout_s: float | None = None
    """Of this platform's policy; None for `auto`."""
    cold_start_price_s: float | None = None


@dataclass(frozen=True)
class Result:
    """One policy on one trace: medians over the seeds."""

    trace: str
    policy: str
    requests: int
    within_slo: float
    """Share of all requests, failed ones included."""
    failed: int
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    replica_s: float
    cold_starts: int
    flaps: int


@dataclass
class Comparison:
    """All results, those of one trace together."""

    experiment: Experiment
    results: list[Result] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return {
            "experiment": asdict(self.experiment),
            "results": [asdict(result) for result in self.results],
        }


def compare(experiment: Experiment, note: Callable[[str], None]) -> Comparison:
    """Run the experiment; `note` hears how far it is. Raises BadTrace."""
    comparison = Comparison(experiment)
    for name in experiment.traces:
        # One recorded trace is one trace, whatever the seed.
        seeds = experiment.seeds if is_synthetic(name) else experiment.seeds[:1]
        traces = [load(name, seed) for seed in seeds]
        for policy in experiment.policies:
            note(f"{name}: {policy}")
            runs = [
                (simulate(trace, make(policy, experiment, trace), experiment.cluster), trace)
                for trace in traces
            ]
            comparison.results.append(_median(name, policy, experiment.slo_s, runs))
    return comparison


def load(name: str, seed: int) -> list[Arrival]:
    """A synthetic trace by its description, or a recorded one by its path. Raises BadTrace."""
    return synthesize(name, seed) if is_synthetic(name) else read_trace(Path(name))


def make(name: str, experiment: Experiment, trace: Sequence[Arrival]) -> Policy:
    """A fresh policy by its name. Raises BadTrace for one that does not exist."""
    spec = experiment.cluster
    if name == "tidegate":
        return Tidegate(
            TidegatePolicy(
                min_replicas=0,
                max_replicas=spec.max_replicas,
                max_sequences=spec.speed.slots,
                idle_timeout_s=experiment.idle_timeout_s,
                cold_start_price_s=experiment.cold_start_price_s,
            )
        )
    if name == "knative-kpa":
        return KnativeKpa()
    if name == "ray-serve":
        return RayServe()
    if name == "sagemaker":
        return SageMaker(60.0 * _requests_per_s(spec, trace))
    raise BadTrace(f"--policy: {name!r} is not one of {', '.join(POLICIES)}")


def _requests_per_s(spec: ClusterSpec, trace: Sequence[Arrival]) -> float:
    """What one replica finishes of this trace with every slot taken: the load test's result."""
    work = statistics.fmean(spec.speed.work(arrival) for arrival in trace) if trace else 1.0
    return spec.speed.slots / spec.speed.step(spec.speed.slots) / work


def _median(
    trace: str, policy: str, slo_s: float, runs: Sequence[tuple[Run, Sequence[Arrival]]]
) -> Result:
    rows = [_measured(run, len(arrivals), slo_s) for run, arrivals in runs]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return Result(
        trace=trace,
        policy=policy,
        requests=round(middle["requests"]),
        within_slo=middle["within_slo"],
        failed=round(middle["failed"]),
        wait_p50_s=middle["wait_p50_s"],
        wait_p95_s=middle["wait_p95_s"],
        wait_p99_s=middle["wait_p99_s"],
        replica_s=middle["replica_s"],
        cold_starts=round(middle["cold_starts"]),
        flaps=round(middle["flaps"]),
    )


def _measured(run: Run, requests: int, slo_s: float) -> dict[str, float]:
    waits = sorted(run.waits_s)
    return {
        "requests": requests,
        "within_slo": sum(wait <= slo_s for wait in waits) / requests if requests else 1.0,
        "failed": run.failed,
        "wait_p50_s": _quantile(waits, 0.5),
        "wait_p95_s": _quantile(waits, 0.95),
        "wait_p99_s": _quantile(waits, 0.99),
        "replica_s": run.replica_s,
        "cold_starts": run.cold_starts,
        "flaps": run.flaps,
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
