"""What is declared becomes true: waking, idling, failing, updating, deleting."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise

import pytest
from tests.integration.reconcile.conftest import (
    PROJECT,
    SETTINGS,
    Process,
    World,
    becomes_ready,
)

from tidegate.protocol.resources import DeploymentPhase
from tidegate_controlplane.errors import NotFound, Unavailable
from tidegate_controlplane.store.deployments import change_deployment
from tidegate_controlplane.store.tables import Deployment

D = DeploymentPhase

# --- waking and idling ----------------------------------------------------------------------------


async def test_a_serverless_deployment_stays_at_zero_until_it_is_asked(world: World) -> None:
    await world.declare()
    await world.turn(3)
    view = await world.view()
    assert (view.phase, view.observed_generation) == (D.IDLE, 1)
    assert await world.rows() == []


async def test_a_held_request_wakes_it_and_is_given_the_replica(world: World) -> None:
    view = await world.declare()
    await world.turn()
    async with world.held(view.id) as request:
        await world.turn()
        assert await world.phase() is D.WAKING
        (process,) = world.running
        assert (process.launch.model_name, process.launch.source) == ("smol", str(world.model))
        await world.turn(2, seconds=2)
        assert not request.done()
        becomes_ready(process)
        await world.turn(seconds=1)
        assert (await request).replica_id == process.launch.replica_id
    view = await world.view()
    assert (view.phase, view.replicas.ready) == (D.READY, 1)
    (row,) = await world.rows()
    assert (row.cold_start_s, row.pid, row.port) == (5.0, process.pid, 8000)


async def test_the_loop_does_not_wait_for_its_tick_when_a_request_is_held(world: World) -> None:
    view = await world.declare()
    loop = asyncio.create_task(world.reconciler.run())
    while await world.phase() is not D.IDLE:
        await asyncio.sleep(0.01)
    async with world.held(view.id):
        async with asyncio.timeout(60):
            while not world.running:
                await asyncio.sleep(0.01)
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    assert SETTINGS.tick_s > 5


async def test_after_the_idle_time_it_goes_back_to_zero(world: World) -> None:
    view = await world.declare(scaling={"idle_timeout_s": 60})
    world.provisioner.on_start = becomes_ready
    async with world.held(view.id) as request:
        await world.turn(3)
        await request
    await world.turn(seconds=59)
    assert await world.phases() == ["ready"]
    await world.turn(seconds=2)
    assert await world.phases() == ["draining"]
    assert world.endpoints.ready(view.id) == []
    await world.turn()
    assert await world.phases() == ["terminated"]
    assert (await world.view()).phase is D.IDLE
    assert world.provisioner.processes == {}


async def test_it_does_not_go_to_zero_under_a_long_request(world: World) -> None:
    view = await world.declare(scaling={"idle_timeout_s": 0})
    world.provisioner.on_start = becomes_ready
    async with world.held(view.id) as request:
        await world.turn(3)
        await request
        async with world.endpoints.acquire(view.id, 1e9):
            await world.turn(3, seconds=1000)
            assert await world.phases() == ["ready"]
    await world.turn(2)
    assert await world.phases() == ["terminated"]


async def test_a_realtime_deployment_is_started_without_being_asked(world: World) -> None:
    await world.declare(mode="realtime", scaling={"min_replicas": 2})
    await world.turn()
    assert (await world.view()).phase is D.PROVISIONING
    assert len(world.running) == 2
    for process in world.running:
        becomes_ready(process)
    await world.turn(2)
    view = await world.view()
    assert (view.phase, view.message) == (D.READY, "2 replicas ready")


async def test_more_work_calls_for_more_replicas_up_to_the_maximum(world: World) -> None:
    view = await world.declare(scaling={"max_replicas": 3, "target_in_flight": 1})
    world.provisioner.on_start = becomes_ready
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(world.held(view.id))
        await world.turn()
        assert len(world.running) == 3


async def test_a_pass_that_finds_all_as_it_should_be_writes_nothing(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(4)
    before = await world.deployment_row(view.id), await world.rows(), await world.events()
    await world.turn(3, seconds=1)
    assert (await world.deployment_row(view.id), await world.rows(), await world.events()) == before


# --- failing --------------------------------------------------------------------------------------


async def test_a_crashed_replica_is_replaced_after_its_back_off(world: World) -> None:
    await world.declare(mode="realtime")
    await world.turn()
    world.running[0].crash("exited with status 1; its log ends: boom")
    await world.turn()
    view = await world.view()
    assert (view.phase, view.message) == (
        D.DEGRADED,
        "Crashed: exited with status 1; its log ends: boom",
    )
    assert await world.phases() == ["failed"]
    await world.turn(seconds=0.9)
    assert await world.phases() == ["failed"]
    world.provisioner.on_start = becomes_ready
    await world.turn(seconds=0.2)
    await world.turn(2)
    assert await world.phases() == ["failed", "ready"]
    assert await world.phase() is D.READY


async def test_failures_in_a_row_wait_longer_each_time(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = Process.crash
    starts = []
    for second in range(40):
        await world.turn(2)
        starts += [second] * (len(world.provisioner.ever) - len(starts))
        world.clock.elapsed_s += 1
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps[:4] == sorted(gaps[:4])
    assert gaps[3] >= 7


async def test_a_process_that_cannot_be_started_waits_like_one_that_crashed(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.cannot_start = "cannot start a replica process: no memory"
    await world.turn(5)
    assert await world.phases() == ["failed"]
    await world.turn(5, seconds=1)
    assert len(await world.rows()) <= 4
    (row, *_) = await world.rows()
    assert (row.reason, row.message) == (
        "StartFailed",
        "cannot start a replica process: no memory",
    )
    assert ("StartFailed", "cannot start a replica process: no memory") in await world.events()
    world.provisioner.cannot_start = None
    world.provisioner.on_start = becomes_ready
    await world.turn(4, seconds=30)
    assert await world.phase() is D.READY


async def test_a_refused_replica_fails_the_deployment_and_tells_those_who_wait(
    world: World,
) -> None:
    view = await world.declare()
    world.provisioner.on_start = lambda process: process.refuse("its weights are pickled")
    async with world.held(view.id) as request:
        await world.turn(2)
        with pytest.raises(Unavailable, match="cannot start: its weights are pickled") as caught:
            await request
        assert caught.value.code == "deployment_failed"
    view = await world.view()
    assert (view.phase, view.message) == (D.FAILED, "its weights are pickled")
    await world.turn(5, seconds=100)
    assert len(await world.rows()) == 1, "it is not tried again"


async def test_waking_a_failed_deployment_tries_again(world: World) -> None:
    view = await world.declare()
    world.provisioner.on_start = lambda process: process.refuse("no")
    async with world.held(view.id):
        await world.turn(2)
    assert await world.phase() is D.FAILED
    world.provisioner.on_start = becomes_ready
    world.clock.elapsed_s += 1
    await world.deployments.wake(PROJECT, "smol")
    await world.turn(3)
    assert await world.phase() is D.READY
    async with world.held(view.id) as request:
        await request


async def test_a_request_outlives_two_failed_starts_and_is_answered_by_the_third(
    world: World,
) -> None:
    view = await world.declare(scaling={"idle_timeout_s": 0})
    world.provisioner.on_start = Process.crash
    async with world.held(view.id) as request:
        for _ in range(4):
            await world.turn(seconds=1)
        assert len(world.provisioner.ever) == 2
        world.provisioner.on_start = becomes_ready
        for _ in range(6):
            await world.turn(seconds=1)
        assert (await request).replica_id == list(world.provisioner.ever)[-1]
    assert (await world.phases())[:2] == ["failed", "failed"]
    assert len(world.provisioner.ever) == 3


async def test_requests_are_told_after_three_failures_and_a_later_one_is_tried_again(
    world: World,
) -> None:
    view = await world.declare(scaling={"idle_timeout_s": 0})
    world.provisioner.on_start = Process.crash
    async with world.held(view.id) as request:
        while not request.done():
            await world.turn(seconds=1)
        with pytest.raises(Unavailable, match="failed 3 times in a row"):
            await request
    async with world.held(view.id) as request:
        with pytest.raises(Unavailable, match="failed 3 times in a row"):
            await request
    world.provisioner.on_start = becomes_ready
    await world.turn(2, seconds=60)
    async with world.held(view.id) as request:
        await world.turn(3)
        assert (await request).replica_id
    assert await world.phase() is D.READY


async def test_an_unhealthy_replica_is_taken_off_killed_and_replaced(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (sick,) = world.running
    sick.healthy = False
    await world.turn()
    assert world.endpoints.ready(view.id) == []
    assert world.provisioner.killed == [sick.launch.replica_id]
    await world.turn(3, seconds=2)
    assert await world.phases() == ["failed", "ready"]
    assert world.provisioner.known() == [world.running[0].launch.replica_id]


async def test_a_replica_that_does_not_become_ready_in_time_is_killed(world: World) -> None:
    await world.declare(mode="realtime")
    await world.turn(2)
    (slow,) = world.running
    slow.overdue = True
    await world.turn()
    assert (await world.rows())[0].reason == "StartTimeout"
    assert world.provisioner.killed == [slow.launch.replica_id]


async def test_trouble_with_one_deployment_stops_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bad = await world.declare("bad", mode="realtime")
    await world.declare("good", mode="realtime")
    now = world.clock.now()
    await world.database.write(
        lambda s: change_deployment(s, s.get_one(Deployment, bad.id), now, plan={"no": "plan"})
    )
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    assert await world.phase("good") is D.READY
    assert f"a pass over deployment {bad.id} failed" in caplog.text


# --- updating -------------------------------------------------------------------------------------


async def test_a_rolling_update_offers_the_new_revision_before_it_drains_the_former(
    world: World,
) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (former,) = world.running
    world.provisioner.on_start = lambda _process: None
    await world.declare(mode="realtime", runtime={"max_sequences": 3})
    await world.turn(3)
    assert await world.phase() is D.UPDATING
    old_id = former.launch.replica_id
    assert [e.replica_id for e in world.endpoints.ready(view.id)] == [old_id]
    new = world.running[1]
    assert new.launch.plan.max_sequences == 3
    becomes_ready(new)
    await world.turn(2)
    assert world.provisioner.offered_at_drain == {old_id: {new.launch.replica_id}}
    await world.turn()
    updated = await world.view()
    assert (updated.phase, updated.observed_generation) == (D.READY, 2)
    assert world.running == [new]


async def test_a_former_replica_drains_only_when_its_requests_have_ended(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (former,) = world.running
    async with world.endpoints.acquire(view.id, 1e9):
        await world.declare(mode="realtime", runtime={"max_sequences": 3})
        await world.turn(5, seconds=1)
        assert await world.phases() == ["draining", "ready"]
        assert world.provisioner.offered_at_drain == {}
        assert former.exited is None
    await world.turn(2)
    assert await world.phases() == ["terminated", "ready"]


async def test_a_request_that_does_not_end_is_cut_at_the_drain_deadline(world: World) -> None:
    view = await world.declare(mode="realtime", rollout={"drain_timeout_s": 10})
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    former = world.running[0].launch.replica_id
    async with world.endpoints.acquire(view.id, 1e9):
        await world.declare(
            mode="realtime", rollout={"drain_timeout_s": 10}, runtime={"max_sequences": 3}
        )
        await world.turn(3)
        await world.turn(seconds=9)
        assert world.provisioner.killed == []
        await world.turn(seconds=2)
        assert world.provisioner.killed == [former]
        await world.turn()
    assert (await world.phases())[0] == "terminated"


async def test_an_update_that_does_not_start_leaves_the_former_serving(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (former,) = world.running
    world.provisioner.on_start = lambda process: process.refuse("too large")
    await world.declare(mode="realtime", runtime={"max_sequences": 3})
    await world.turn(6, seconds=10)
    left = await world.view()
    assert (left.phase, left.generation, left.observed_generation) == (D.READY, 2, 1)
    current = next(c for c in left.conditions if c.type == "Current")
    assert (current.status, current.reason) == (False, "RolledBack")
    assert current.message == "the new revision does not start: Refused: too large"
    assert [e.replica_id for e in world.endpoints.ready(view.id)] == [former.launch.replica_id]
    assert len(await world.rows()) == 2


async def test_recreate_ends_the_former_before_the_new_one_starts(world: World) -> None:
    rollout = {"strategy": "recreate"}
    await world.declare(mode="realtime", rollout=rollout)
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    world.provisioner.stubborn = True
    await world.declare(mode="realtime", rollout=rollout, runtime={"max_sequences": 3})
    await world.turn(4)
    assert await world.phases() == ["draining"]
    world.running[0].crash()
    await world.turn(3)
    assert await world.phases() == ["terminated", "ready"]


async def test_changed_scaling_keeps_the_replicas_that_run(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    (first,) = world.running
    await world.declare(mode="realtime", scaling={"min_replicas": 2})
    await world.turn(3)
    assert len(world.running) == 2
    assert first in world.running
    assert (await world.view()).observed_generation == 2


# --- deleting -------------------------------------------------------------------------------------


async def test_deleting_ends_the_replicas_and_frees_the_name(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    await world.deployments.delete(PROJECT, "smol")
    await world.turn()
    assert await world.phase() is D.DELETING
    await world.turn(2)
    with pytest.raises(NotFound):
        await world.view()
    row = await world.deployment_row(view.id)
    assert (row.phase, row.deleted_at, row.desired_replicas) == ("deleted", world.clock.now(), 0)
    assert world.running == []
    assert (await world.declare(mode="batch")).id != view.id


async def test_deleting_waits_for_the_requests_in_flight(world: World) -> None:
    view = await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(3)
    async with world.endpoints.acquire(view.id, 1e9):
        await world.deployments.delete(PROJECT, "smol")
        await world.turn(5, seconds=1)
        assert await world.phase() is D.DELETING
        assert len(world.running) == 1
    await world.turn(3)
    assert world.running == []


async def test_who_waits_for_a_deployment_that_is_deleted_is_told(world: World) -> None:
    view = await world.declare()
    async with world.held(view.id) as request:
        await world.turn()
        await world.deployments.delete(PROJECT, "smol")
        await world.turn()
        with pytest.raises(Unavailable, match="being deleted"):
            await request


async def test_files_are_kept_of_living_deployments_only(world: World) -> None:
    world.provisioner.on_start = becomes_ready
    await world.declare("one", mode="realtime")
    await world.declare("two", mode="realtime")
    await world.turn(3)
    one, two = (process.launch for process in world.running)
    assert world.provisioner.kept_files == {one.replica_id, two.replica_id}
    await world.deployments.delete(PROJECT, "one")
    await world.turn(4)
    assert world.provisioner.kept_files == {
        launch.replica_id for launch in (one, two) if launch.model_name == "two"
    }
