"""Replicas that run elsewhere: capacity that is not there, what a place holds, and its news."""

from __future__ import annotations

import pytest
from tests.integration.reconcile.conftest import PROJECT, Process, World, becomes_ready

from tidegate.protocol.resources import DeploymentPhase, Severity
from tidegate_controlplane.domain.replicas import NoCapacity
from tidegate_controlplane.provision.base import Holding, Notice
from tidegate_controlplane.reconcile import housekeeping

D = DeploymentPhase
RAY = {"hardware": {"provisioner": "ray"}}


async def test_a_request_is_held_while_there_is_no_capacity_and_answered_once_there_is(
    world: World,
) -> None:
    view = await world.declare(**RAY)
    world.provisioner.on_start = Process.find_no_capacity
    async with world.held(view.id) as request:
        for _ in range(20):
            await world.turn(seconds=5)
        assert 4 <= len(world.provisioner.ever) <= 8, "starts are backed off from"
        assert not request.done()
        shown = await world.view()
        assert (shown.phase, shown.message) == (
            D.DEGRADED,
            "NoCapacity: it needs 2 GPUs, and no node has more than 1",
        )
        assert ("NoCapacity", "it needs 2 GPUs, and no node has more than 1") in (
            await world.events()
        )
        world.provisioner.on_start = becomes_ready
        await world.turn(3, seconds=60)
        assert (await request).replica_id == list(world.provisioner.ever)[-1]


async def test_one_former_replica_makes_way_where_a_place_has_no_capacity_for_its_successor(
    world: World,
) -> None:
    parts = {"scaling": {"min_replicas": 2, "max_replicas": 2}, **RAY}
    await world.declare(mode="realtime", **parts)
    world.provisioner.on_start = becomes_ready
    await world.turn(3)

    def only_two(process: Process) -> None:
        full = len([p for p in world.running if p is not process]) >= 2
        (Process.find_no_capacity if full else becomes_ready)(process)

    world.provisioner.on_start = only_two
    await world.declare(mode="realtime", runtime={"max_sequences": 2}, **parts)
    fewest = 2
    for _ in range(40):
        await world.turn(seconds=5)
        fewest = min(fewest, len([p for p in world.running if not p.exited]))
    assert fewest == 1
    assert {p.launch.plan.max_sequences for p in world.running} == {2}
    assert await world.phase() is D.READY


async def test_the_last_replica_that_answers_never_makes_way_for_one_without_capacity(
    world: World,
) -> None:
    await world.declare(mode="realtime", **RAY)
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (former,) = world.running
    world.provisioner.on_start = Process.find_no_capacity
    await world.declare(mode="realtime", runtime={"max_sequences": 2}, **RAY)
    await world.turn(40, seconds=5)
    assert world.running == [former]
    assert await world.phase() is D.DEGRADED
    assert any(isinstance(p.exited, NoCapacity) for p in world.provisioner.ever.values())


async def test_where_a_replica_runs_is_shown(world: World) -> None:
    world.provisioner.where = "node 10.0.0.3"
    world.provisioner.on_start = becomes_ready
    await world.declare(mode="realtime", **RAY)
    await world.turn(3)
    (view,) = (await world.deployments.read.replicas(PROJECT, "smol", None, 10)).data
    assert view.where == "node 10.0.0.3"


async def test_a_deployment_is_deleted_once_its_place_holds_nothing_for_it(world: World) -> None:
    world.provisioner.on_start = becomes_ready
    view = await world.declare(mode="realtime", **RAY)
    await world.turn(3)
    assert world.provisioner.removals == []
    await world.deployments.delete(PROJECT, "smol")
    world.provisioner.holds["ray"] = "its stack is being destroyed"
    await world.turn(3)
    row = await world.deployment_row(view.id)
    assert (row.phase, row.message) == ("deleting", "its stack is being destroyed")
    assert await world.phases() == ["terminated"]
    world.restart()
    await world.reconciler.recover()
    await world.turn()
    row = await world.deployment_row(view.id)
    assert world.provisioner.removals == [Holding(view.id, "ray")]
    assert (row.phase, row.held_at) == ("deleted", [])


async def test_a_deployment_at_zero_keeps_what_its_place_holds_for_it(world: World) -> None:
    world.provisioner.on_start = becomes_ready
    view = await world.declare(scaling={"idle_timeout_s": 5}, **RAY)
    await world.deployments.wake(PROJECT, "smol")
    await world.turn(3)
    assert len(world.running) == 1
    await world.turn(5, seconds=10)
    assert (world.running, await world.phase()) == ([], D.IDLE)
    assert (await world.deployment_row(view.id)).held_at == ["ray"]
    assert world.provisioner.removals == []


async def test_a_place_that_a_rollout_leads_to_keeps_what_it_holds_between_two_tries(
    world: World,
) -> None:
    world.provisioner.on_start = becomes_ready
    view = await world.declare(mode="realtime")
    await world.turn(3)
    world.provisioner.on_start = Process.find_no_capacity
    await world.declare(mode="realtime", **RAY)
    await world.turn(8, seconds=1)
    assert (await world.deployment_row(view.id)).held_at == ["local", "ray"]
    assert world.provisioner.removals == []


async def test_what_was_never_started_holds_nothing(world: World) -> None:
    view = await world.declare(**RAY)
    await world.turn()
    await world.deployments.delete(PROJECT, "smol")
    await world.turn()
    assert (await world.deployment_row(view.id)).phase == "deleted"
    assert world.provisioner.removals == []


async def test_a_place_that_a_deployment_has_left_is_cleared_after_its_last_replica_there(
    world: World,
) -> None:
    world.provisioner.on_start = becomes_ready
    view = await world.declare(mode="realtime", **RAY)
    await world.turn(3)
    world.provisioner.holds["ray"] = "its stack is being destroyed"
    await world.declare(mode="realtime")
    for _ in range(10):
        await world.turn()
        at_ray = [p for p in world.running if p.launch.plan.provisioner == "ray"]
        assert not (at_ray and world.provisioner.removals)
    assert set(world.provisioner.removals) == {Holding(view.id, "ray")}
    assert (await world.deployment_row(view.id)).held_at == ["ray", "local"]
    assert await world.phase() is D.READY
    world.provisioner.holds.clear()
    await world.turn()
    assert (await world.deployment_row(view.id)).held_at == ["local"]
    asked = len(world.provisioner.removals)
    await world.turn(3)
    assert len(world.provisioner.removals) == asked


async def test_news_of_a_place_are_events_of_their_deployment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await world.declare(**RAY)
    world.provisioner.news = [
        Notice("dep_unknown", "StackChanged", "of somebody else's"),
        Notice(view.id, "StackChanged", "creating the endpoint", Severity.WARNING),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "write_notices", _fails)
        with pytest.raises(RuntimeError):
            await world.turn()
    await world.turn(2)
    assert (await world.events()).count(("StackChanged", "creating the endpoint")) == 1


def _fails(*_: object) -> None:
    raise RuntimeError("struck down")
