"""The autoscaler beside Knative's, Ray Serve's and SageMaker's, on the same traces (simulated)."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.rows import Row

TRACES = ("poisson:rate=1.7", "bursty:rate=3.4", "diurnal:rate=3.1,seconds=21600")
METRICS = {
    "within_slo": "share",
    "failed": "requests",
    "wait_p95_s": "s",
    "replica_s": "replica-s",
    "cold_starts": "starts",
    "flaps": "flaps",
}
NO_MODEL = "none"


def measure(seeds: int) -> list[Row]:
    """Medians over `seeds` traces of each shape, one row for each policy, trace and metric."""
    command = [sys.executable, "-m", "tidegate_controlplane.simulate", "--seeds", str(seeds)]
    for trace in TRACES:
        command += ["--trace", trace]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    results = json.loads(done.stdout)["results"]
    return [
        Row(
            result["policy"],
            f"simulate {result['trace']}",
            metric,
            float(result[metric]),
            unit,
            NO_MODEL,
        )
        for result in results
        for metric, unit in METRICS.items()
    ]
