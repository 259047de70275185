"""One trace under every policy: the same result for a seed, and the platform's own code in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate_controlplane.errors import BadTrace
from tidegate_controlplane.simulate.compare import POLICIES, Experiment, Result, compare

TRACE = "bursty:rate=4,on=60,off=240,seconds=1800"


def results(*traces: str, policies: tuple[str, ...] = POLICIES) -> list[Result]:
    return compare(Experiment(traces, policies, seeds=(1, 2)), lambda _text: None).results


def test_a_comparison_is_the_same_each_time() -> None:
    assert results(TRACE) == results(TRACE)


def test_every_policy_answers_every_request_of_the_same_trace() -> None:
    found = results(TRACE)
    assert [result.policy for result in found] == list(POLICIES)
    assert len({result.requests for result in found}) == 1
    assert all(result.failed == 0 for result in found)
    assert all(0.3 < result.within_slo <= 1.0 for result in found)


def test_in_bursts_it_serves_more_in_time_than_kpa_with_four_fifths_of_its_replicas() -> None:
    own, kpa = results("bursty:rate=8,seconds=3600", policies=("tidegate", "knative-kpa"))
    assert own.within_slo > kpa.within_slo
    assert own.replica_s < 0.8 * kpa.replica_s


def test_under_a_steady_load_it_needs_fewer_replicas_than_ray() -> None:
    own, ray = results("poisson:rate=6,seconds=1800", policies=("tidegate", "ray-serve"))
    assert own.within_slo > ray.within_slo
    assert own.replica_s < 0.8 * ray.replica_s


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(BadTrace, match="'hpa' is not one of tidegate, knative-kpa"):
        results(TRACE, policies=("hpa",))


def test_the_command_writes_one_object_and_refuses_a_bad_trace_in_one(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at_s": 1, "prompt_tokens": 1, "output_tokens": 1}\n')
    command = [sys.executable, "-m", "tidegate_controlplane.simulate", f"--trace={trace}"]
    done = subprocess.run([*command, "--seeds=1"], capture_output=True, check=True)
    assert len(json.loads(done.stdout)["results"]) == len(POLICIES)
    trace.write_text("{}")
    refused = subprocess.run(command, capture_output=True, check=False)
    assert refused.returncode == 1
    assert "line 1: at_s" in json.loads(refused.stdout)["error"]["message"]
