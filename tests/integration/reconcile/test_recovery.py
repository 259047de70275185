"""Restarts, rivals and blows at any moment: the next pass goes on from what is true."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.reconcile.conftest import PROJECT, World, becomes_ready

from tidegate.protocol.resources import DeploymentPhase
from tidegate_controlplane.provision.base import FormerReplica
from tidegate_controlplane.reconcile import loop
from tidegate_controlplane.store.deployments import change_deployment
from tidegate_controlplane.store.tables import Deployment

D = DeploymentPhase


async def test_a_restart_adopts_nothing_and_starts_anew(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (former,) = world.running
    world.restart()
    await world.reconciler.recover()
    assert world.provisioner.swept == [
        FormerReplica(former.launch.replica_id, view.id, "local", former.pid, 77)
    ]
    (row,) = await world.rows()
    assert (row.phase, row.reason) == ("terminated", "ControlPlaneRestarted")
    assert row.finished_at is not None
    assert (await world.events())[-1][0] == "ControlPlaneRestarted"
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    assert await world.phases() == ["terminated", "ready"]
    assert world.running[0].launch.replica_id != former.launch.replica_id


async def test_a_restart_forgets_no_refusal(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = lambda process: process.refuse("no")
    await world.turn(2)
    world.restart()
    await world.reconciler.recover()
    await world.turn(3, seconds=100)
    assert await world.phase() is D.FAILED
    assert world.provisioner.ever == {}


async def test_a_restart_ends_what_was_being_deleted(world: World) -> None:
    view = await world.declare(mode="realtime")
    await world.turn()
    await world.deployments.delete(PROJECT, "smol")
    world.restart()
    await world.reconciler.recover()
    await world.turn(2)
    assert (await world.deployment_row(view.id)).phase == "deleted"


async def test_a_pass_whose_rows_changed_meanwhile_is_dropped_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await world.declare(mode="realtime")
    observe = world.provisioner.observe

    async def rival(replica_ids: list[str]) -> Any:
        now = world.clock.now()
        await world.database.write(
            lambda s: change_deployment(s, s.get_one(Deployment, view.id), now, message="rival")
        )
        return await observe(replica_ids)

    monkeypatch.setattr(world.provisioner, "observe", rival)
    await world.turn()
    assert (await world.view()).message == "rival"
    assert await world.rows() == []
    assert world.running == []
    monkeypatch.undo()
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    assert await world.phase() is D.READY


async def test_a_pass_that_is_dropped_ends_no_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await world.declare(mode="realtime", scaling={"min_replicas": 2})
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    world.running[0].healthy = False
    step = loop.step

    def rival(*arguments: Any) -> Any:
        now = world.clock.now()
        world.database._write_thread.submit(_rename, world, view.id, now).result()
        return step(*arguments)

    monkeypatch.setattr(loop, "step", rival)
    await world.turn()
    assert world.provisioner.killed == []
    assert await world.phases() == ["ready", "ready"]
    monkeypatch.undo()
    await world.turn()
    assert len(world.provisioner.killed) == 1


def _rename(world: World, key: str, now: Any) -> None:
    from sqlmodel import Session

    with Session(world.database.writer) as session, session.begin():
        change_deployment(session, session.get_one(Deployment, key), now, message="rival")


async def test_a_process_that_no_row_wants_is_ended(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (known,) = world.running
    stray = type(known)(known.launch, pid=9)
    world.provisioner.processes["rep_stray"] = stray
    await world.turn()
    assert stray.exited is not None
    assert world.provisioner.known() == [known.launch.replica_id]


async def test_a_replica_whose_process_vanished_is_replaced(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    world.provisioner.processes.clear()
    await world.turn()
    assert [row.reason for row in await world.rows()] == ["Lost"]
    await world.turn(3, seconds=2)
    assert await world.phases() == ["failed", "ready"]


async def story(world: World) -> None:
    """A life: up, an update under way, then deleted beside a sibling that stays."""
    world.provisioner.on_start = becomes_ready
    await world.declare("gone", mode="realtime")
    await world.declare(mode="realtime", scaling={"min_replicas": 2})
    await world.turn(3)
    await world.declare(mode="realtime", scaling={"min_replicas": 1}, runtime={"max_sequences": 3})
    await world.deployments.delete(PROJECT, "gone")


@pytest.mark.parametrize("call", range(0, 36, 3))
async def test_a_blow_at_any_call_leaves_nothing_that_later_passes_do_not_mend(
    world: World, call: int
) -> None:
    await story(world)
    world.provisioner.fail_at = call
    for _ in range(6):
        try:
            await world.turn(seconds=1)
        except RuntimeError as blow:
            assert str(blow) == "struck down"
    world.provisioner.fail_at = None
    await world.turn(8, seconds=20)
    view = await world.view()
    assert (view.phase, view.observed_generation) == (D.READY, 2)
    (process,) = world.running
    assert process.launch.plan.max_sequences == 3
    assert world.provisioner.known() == [process.launch.replica_id]
    assert [e.replica_id for e in world.endpoints.ready(view.id)] == [process.launch.replica_id]
    assert [v.name for v in (await world.deployments.read.page(PROJECT, None, 9)).data] == ["smol"]


@pytest.mark.parametrize("call", range(0, 36, 3))
async def test_a_restart_at_any_call_leaves_nothing_that_later_passes_do_not_mend(
    world: World, call: int
) -> None:
    await story(world)
    world.provisioner.fail_at = call
    for _ in range(3):
        try:
            await world.turn(seconds=1)
        except RuntimeError:
            break
        if world.provisioner.fail_at is None:
            break
    world.restart()
    await world.reconciler.recover()
    world.provisioner.on_start = becomes_ready
    await world.turn(8, seconds=20)
    view = await world.view()
    assert (view.phase, view.observed_generation) == (D.READY, 2)
    (process,) = world.running
    unfinished = [r.id for r in await world.rows() if r.finished_at is None]
    assert unfinished == [process.launch.replica_id]
    assert [v.name for v in (await world.deployments.read.page(PROJECT, None, 9)).data] == ["smol"]
