"""Profiles from the caller's side: both clients and the command line."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from tidegate import AsyncClient, Client
from tidegate.cli.app import app

SMOL = "/api/v1/deployments/smol"
TRACE = gzip.compress(b'{"traceEvents":[]}')
PROFILE = {
    "summary": {
        "replica_id": "rep_1",
        "seconds": 9.8,
        "steps": 1200,
        "operator_steps": 10,
        "rows_per_step": 3.25,
        "tokens_per_step": 4.5,
        "phases": [
            {
                "phase": "forward",
                "share": 0.915,
                "count": 1200,
                "mean_s": 0.0061,
                "p50_s": 0.006,
                "p99_s": 0.0095,
            }
        ],
    },
    "trace": b64encode(TRACE).decode(),
}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def smol(served: Any, shapes: Any) -> Any:
    served.on("GET", SMOL, shapes.deployment())
    served.on("POST", f"{SMOL}/profile", PROFILE)
    return served


def test_a_profile_is_a_table_and_a_file_for_perfetto(smol: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    result = run("profile", "smol", "--seconds", "5", "--output", str(path))
    assert result.stdout.splitlines() == [
        "rep_1: 1200 steps in 9.8 s, 3.2 sequences and 4.5 tokens a step",
        "PHASE    SHARE  MEAN MS  P50 MS  P99 MS",
        "forward  91.5%  6.100    6.000   9.500 ",
    ]
    assert result.stderr == f"the trace is in {path}; open it in https://ui.perfetto.dev\n"
    assert path.read_bytes() == TRACE
    assert smol.asked[-1].json == {"seconds": 5.0}


def test_with_json_the_summary_is_machines_and_the_file_has_a_name_of_its_own(
    smol: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = json.loads(run("profile", "smol", "--replica", "rep_1", "--json").stdout)
    assert said == {"trace": "smol-profile.json.gz", "summary": PROFILE["summary"]}
    assert (tmp_path / "smol-profile.json.gz").read_bytes() == TRACE
    assert smol.asked[-1].json == {"seconds": 10, "replica": "rep_1"}


def test_a_running_profile_a_bad_path_and_bad_seconds_are_one_line(
    smol: Any, shapes: Any, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "none" / "trace.json.gz"):
        assert "cannot be written" in run("profile", "smol", "--output", str(path)).stderr
    assert smol.asked == []
    assert run("profile", "smol", "--seconds", "61").exit_code == 2
    running = shapes.problem(409, "profile_running", "a profile is running")
    smol.on("POST", f"{SMOL}/profile", httpx.Response(409, json=running))
    refused = run("profile", "smol")
    assert (refused.exit_code, refused.stderr) == (1, "error: a profile is running\n")


async def test_both_clients_bring_the_trace_and_the_summary(canned: Any, shapes: Any) -> None:
    canned.on("GET", SMOL, shapes.deployment())
    canned.on("POST", f"{SMOL}/profile", PROFILE)
    with Client(url="http://x", api_key="k", transport=canned.transport()) as client:
        found = client.deployments.get("smol").profile(seconds=2)
    async with AsyncClient(url="http://x", api_key="k", transport=canned.transport()) as awaited:
        smol = await awaited.deployments.get("smol")
        assert await smol.profile(seconds=2) == found
    assert found.trace_gzip == TRACE
    assert found.summary.phases[0].p99_s == 0.0095
