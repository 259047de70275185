"""`tidegate simulate`: the control plane's code runs in a child, and its result is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tidegate.cli.app import app
from tidegate.local import simulation

SHORT = "poisson:rate=1,seconds=60"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["simulate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_policies_are_compared_in_a_table() -> None:
    result = run("--trace", SHORT, "--policy", "tidegate", "--policy", "ray-serve", "--seeds", "1")
    assert result.exit_code == 0, result.output
    header, own, ray = result.stdout.splitlines()
    assert header.split()[:4] == ["TRACE", "POLICY", "WITHIN", "SLO"]
    assert own.split()[:2] == [SHORT, "tidegate"]
    assert ray.split()[:2] == [SHORT, "ray-serve"]


def test_what_is_asked_for_is_what_is_simulated() -> None:
    options = {
        "slo": 1.5,
        "slots": 4,
        "cold-start": 7,
        "hold": 30,
        "max-replicas": 3,
        "idle-timeout": 60,
        "cold-start-price": 12,
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    result = run("--trace", SHORT, "--policy=tidegate", "--seeds=2", *flags, "--json")
    experiment = json.loads(result.stdout)["experiment"]
    cluster = experiment["cluster"]
    assert (experiment["slo_s"], experiment["seeds"]) == (1.5, [1, 2])
    assert (experiment["idle_timeout_s"], experiment["cold_start_price_s"]) == (60.0, 12.0)
    assert (cluster["speed"]["slots"], cluster["speed"]["cold_start_s"]) == (4, 7.0)
    assert (cluster["hold_s"], cluster["max_replicas"]) == (30.0, 3)


def test_a_recorded_trace_with_a_fault_is_refused_by_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at_s": 0}')
    result = run("--trace", str(trace))
    assert result.exit_code == 1
    assert "line 1: prompt_tokens" in result.stderr


def test_without_the_control_plane_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MODULE", "not_there")
    result = run("--trace", SHORT)
    assert result.exit_code == 1
    assert "the control plane is not installed (not_there is missing)" in result.stderr
    assert "pip install 'tidegate[controlplane]'" in result.stderr
