"""P6: fifty streams while revisions change: none fails, none is cut, each is of one revision."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.rollouts.conftest import DEFAULT_PROJECT, Load, Stage

from tidegate.protocol.resources import RollbackRequest, ScaleRequest

STREAMS = 50
CANARY: dict[str, Any] = {
    "strategy": "canary",
    "canary": {"steps": [{"weight": 30, "bake_s": 0.3}]},
}
SLOW_CANARY = {"strategy": "canary", "canary": {"steps": [{"weight": 30, "bake_s": 600}]}}


def check(stage: Stage, load: Load, *revisions: str) -> None:
    """Every stream was whole, of one revision, and each of `revisions` answered some."""
    assert load.faults == []
    assert set(load.whole) == {(revision,) for revision in revisions}
    assert [server.cut for server in stage.provisioner.servers.values() if server.cut] == []


async def test_a_rolling_update_and_its_rollback_fail_no_stream(stage: Stage) -> None:
    await stage.declare(3)
    await stage.until_settled()
    async with stage.asked_by(STREAMS) as load:
        await stage.until_asked(3)
        await stage.declare(4)
        await stage.until_phase("promoted")
        await stage.until_asked(4)
        await stage.deployments.rollback(DEFAULT_PROJECT, "smol", RollbackRequest())
        await stage.until_phase("promoted")
        await asyncio.sleep(0.3)
        await stage.until_settled()
    check(stage, load, "3", "4")


async def test_a_canary_and_one_that_is_aborted_fail_no_stream(stage: Stage) -> None:
    await stage.declare(3, rollout=CANARY)
    await stage.until_settled()
    async with stage.asked_by(STREAMS) as load:
        await stage.declare(4, rollout=CANARY)
        await stage.until_phase("promoted")
        await stage.declare(5, rollout=SLOW_CANARY)
        await stage.until_phase("baking")
        await stage.until_asked(5)
        view = await stage.rollout()
        await stage.deployments.rollouts.request(DEFAULT_PROJECT, view.id, "abort")
        await stage.until_phase("rolled_back")
        await stage.until_settled()
    check(stage, load, "3", "4", "5")


async def test_blue_green_and_its_switch_back_fail_no_stream(stage: Stage) -> None:
    rollout = {"strategy": "blue_green", "bake_s": 600}
    await stage.declare(3, rollout=rollout)
    await stage.until_settled()
    async with stage.asked_by(STREAMS) as load:
        await stage.declare(4, rollout=rollout)
        await stage.until_phase("baking")
        await stage.until_asked(4)
        view = await stage.rollout()
        assert view.weight == 100
        await stage.deployments.rollouts.request(DEFAULT_PROJECT, view.id, "abort")
        await stage.until_phase("rolled_back")
        await asyncio.sleep(0.2)
        await stage.until_settled()
    check(stage, load, "3", "4")


async def test_a_drain_waits_for_every_stream(stage: Stage) -> None:
    await stage.declare(3, scaling={"min_replicas": 3, "target_in_flight": 1000})
    await stage.until_settled()
    async with stage.asked_by(STREAMS) as load:
        await stage.until_asked(3)
        await stage.deployments.scale(
            DEFAULT_PROJECT, "smol", ScaleRequest(min_replicas=1, max_replicas=1)
        )
        async with asyncio.timeout(60):
            while sum(not server.gone for server in stage.provisioner.servers.values()) > 1:
                await asyncio.sleep(0.02)
    check(stage, load, "3")


async def test_a_canary_that_fails_is_rolled_back_by_itself_and_nobody_sees_another_revision(
    stage: Stage,
) -> None:
    stage.provisioner.broken.add(4)
    await stage.declare(3, rollout=CANARY)
    await stage.until_settled()
    async with stage.asked_by(20) as load:
        await stage.declare(4, rollout={**CANARY, "canary": {"steps": [{"weight": 20}]}})
        view = await stage.until_phase("rolled_back")
        await stage.until_settled()
    assert view.reason == "ErrorRate"
    assert set(load.whole) == {("3",)}
    assert all(fault.startswith("500") for fault in load.faults)


async def test_a_shadows_answers_are_compared_and_never_returned(stage: Stage) -> None:
    shadow = {"share": 0.5, "duration_s": 0.2, "min_requests": 10}
    rollout = {"strategy": "shadow", "shadow": shadow}
    await stage.declare(3, rollout=rollout)
    await stage.until_settled()
    async with stage.asked_by(10) as load:
        await stage.declare(4, rollout=rollout)
        view = await stage.until_phase("baking", "promoted")
        while (await stage.rollout()).phase == "baking":
            assert set(load.whole) <= {("3",)}
            await asyncio.sleep(0.02)
        view = await stage.until_phase("promoted")
    assert view.comparison and view.comparison.likeness
    likeness = view.comparison.likeness
    assert likeness.compared >= 10
    assert (likeness.same_finish, likeness.length_ratio) == (1.0, 1.0)
    copies = [
        server.replica.headers
        for server in stage.provisioner.servers.values()
        if b"4 " in server.replica.script.parts[0]  # type: ignore[operator]
    ]
    priorities = {headers["x-tidegate-priority"] for seen in copies for headers in seen}
    assert "2" in priorities
    assert load.faults == []
