"""Rollouts from the caller's side: both clients and the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tidegate import AsyncClient, Client
from tidegate.cli.app import app

SMOL = "/api/v1/deployments/smol"
NOW = "2026-01-01T00:00:00Z"


def view(phase: str = "baking", **more: Any) -> dict[str, Any]:
    return {
        "id": "rol_1",
        "deployment": "smol",
        "strategy": "canary",
        "phase": phase,
        "step": 0,
        "steps": 3,
        "from_revision": 1,
        "to_revision": 2,
        "weight": 5.0,
        "reason": phase.title().replace("_", ""),
        "message": f"it is {phase}",
        "created_at": NOW,
        "updated_at": NOW,
        **more,
    }


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def smol(served: Any, shapes: Any) -> Any:
    served.on("GET", SMOL, shapes.deployment())
    served.on("GET", f"{SMOL}/rollout", view())
    return served


def test_status_tells_the_step_the_weight_and_how_both_revisions_answer(smol: Any) -> None:
    comparison = {
        "stable": {"answered": 95, "streams": 9, "first_token_s": 0.05, "per_token_s": 0.002},
        "new": {"answered": 5, "failed": 1},
        "likeness": {"compared": 4, "greedy": 4, "agreement": 0.75},
    }
    smol.on("GET", f"{SMOL}/rollout", view(comparison=comparison))
    assert run("rollout", "status", "smol").stdout.splitlines() == [
        "smol: canary from revision 1 to 2 is baking step 1/3, 5 % on the new one: it is baking",
        "  former: 95 answered, 0 failed, first token 50 ms, 2.0 ms a token",
        "  new:    5 answered, 1 failed",
        "  copies: 4 compared, greedy agreement 75.0%",
    ]
    assert json.loads(run("rollout", "status", "smol", "--json").stdout)["id"] == "rol_1"


@pytest.mark.parametrize(("phase", "code"), [("promoted", 0), ("rolled_back", 1)])
def test_watching_ends_with_the_rollout_and_with_one_when_it_was_rolled_back(
    smol: Any, phase: str, code: int
) -> None:
    smol.on("GET", f"{SMOL}/rollout", view(), view("baking"), view(phase))
    result = run("rollout", "status", "smol", "--watch")
    assert result.exit_code == code
    said = [line.rpartition(": ")[2] for line in result.stdout.splitlines()]
    assert said == ["it is baking", f"it is {phase}"]


def test_promote_and_abort_ask_for_the_end_of_the_present_one(smol: Any) -> None:
    for wanted in ("promote", "abort"):
        smol.on("POST", f"/api/v1/rollouts/rol_1/{wanted}", view(requested=wanted))
        assert run("rollout", wanted, "smol").exit_code == 0
    assert smol.paths("POST") == [
        "/api/v1/rollouts/rol_1/promote",
        "/api/v1/rollouts/rol_1/abort",
    ]


def test_an_abort_that_ends_rolled_back_is_a_success(smol: Any) -> None:
    smol.on("POST", "/api/v1/rollouts/rol_1/abort", view(requested="abort"))
    smol.on("GET", f"{SMOL}/rollout", view(), view("rolled_back"))
    assert run("rollout", "abort", "smol", "--watch").exit_code == 0


def test_rollback_names_the_revision_only_when_one_is_given(smol: Any, shapes: Any) -> None:
    smol.on("POST", f"{SMOL}/rollback", shapes.deployment(generation=3))
    assert run("rollback", "smol").stdout == "smol goes back (generation 3)\n"
    assert run("rollback", "smol", "--to", "1").exit_code == 0
    assert [asked.json for asked in smol.asked if asked.method == "POST"] == [{}, {"to": 1}]


def test_apply_and_wait_ends_with_the_reason_when_the_revision_was_rolled_back(
    smol: Any, shapes: Any
) -> None:
    current = {
        "type": "Current",
        "status": False,
        "reason": "RolledBack",
        "message": "it failed 9 of 10",
        "since": NOW,
    }
    declared = {"generation": 2, "message": "1 replica ready"}
    smol.on("PUT", SMOL, shapes.deployment(phase="updating", **declared))
    rolling = {**current, "reason": "RollingOut"}
    smol.on(
        "GET",
        SMOL,
        shapes.deployment(phase="updating", conditions=[rolling], **declared),
        shapes.deployment(conditions=[current], **declared),
    )
    result = run("deploy", "/m", "--name", "smol", "--wait")
    assert result.exit_code == 1
    assert "error: deployment 'smol' is ready (RolledBack): it failed 9 of 10" in result.stderr


async def test_both_clients_list_wait_and_end_rollouts(canned: Any, shapes: Any) -> None:
    canned.on("GET", SMOL, shapes.deployment())
    canned.on("GET", "/api/v1/rollouts", {"data": [view("promoted")]})
    canned.on("POST", "/api/v1/rollouts/rol_1/abort", view("rolling_back"))
    canned.on("GET", f"{SMOL}/rollout", view("promoted"))
    with Client(url="http://x", api_key="k", transport=canned.transport()) as client:
        assert [one.id for one in client.rollouts.list("smol")] == ["rol_1"]
        assert client.rollouts.abort("rol_1").phase == "rolling_back"
        assert client.deployments.get("smol").wait_rollout().phase == "promoted"
    async with AsyncClient(url="http://x", api_key="k", transport=canned.transport()) as awaited:
        assert [one.id async for one in awaited.rollouts.list()] == ["rol_1"]
        assert (await awaited.rollouts.abort("rol_1")).phase == "rolling_back"
        smol = await awaited.deployments.get("smol")
        assert (await smol.wait_rollout()).phase == "promoted"
    assert canned.asked[0].query["deployment"] == "smol"
