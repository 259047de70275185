"""What calls for replicas besides held requests: durable work, and what was measured before."""

from __future__ import annotations

import pytest
from tests.integration.reconcile.conftest import PROJECT, World, becomes_ready

from tidegate.protocol.resources import DeploymentPhase
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.store.tables import Invocation

D = DeploymentPhase


async def queue(world: World, deployment_id: str, status: str) -> None:
    now = world.clock.now()
    row = Invocation(
        id="inv_1",
        project_id=PROJECT,
        deployment_id=deployment_id,
        model="smol",
        endpoint="/v1/chat/completions",
        status=status,
        timeout_s=60,
        request_sha256="",
        created_at=now,
        available_at=now,
    )
    await world.database.write(lambda session: session.merge(row) and None)


async def finish(world: World) -> None:
    now = world.clock.now()

    await world.database.write(
        lambda s: setattr(s.get_one(Invocation, "inv_1"), "finished_at", now)
    )


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_durable_work_calls_for_a_replica_whether_claimed_already_or_not(
    world: World, status: str
) -> None:
    view = await world.declare(mode="async")
    await queue(world, view.id, status)
    await world.turn()
    assert await world.phase() is D.PROVISIONING
    assert len(world.running) == 1


async def test_claiming_the_last_request_in_the_queue_drains_nothing(world: World) -> None:
    view = await world.declare(mode="batch", scaling={"idle_timeout_s": 0})
    world.provisioner.on_start = becomes_ready
    await queue(world, view.id, "queued")
    await world.turn(3)
    await queue(world, view.id, "running")
    await world.turn(3, seconds=100)
    assert await world.phases() == ["ready"]
    await finish(world)
    await world.turn(2)
    assert await world.phases() == ["terminated"]


async def test_a_full_hold_queue_says_the_cold_start_that_was_measured(world: World) -> None:
    view = await world.declare(scaling={"idle_timeout_s": 0})
    async with world.held(view.id) as request:
        await world.turn(2)
        becomes_ready(world.running[0])
        await world.turn(seconds=7)
        await request
    await world.turn(2)
    assert await world.phase() is D.IDLE
    world.endpoints._hold_queue = 0
    with pytest.raises(Unavailable) as caught:
        async with world.endpoints.acquire(view.id, 1e9):
            pass
    assert caught.value.retry_after_s == 7.0
