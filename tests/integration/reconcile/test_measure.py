"""The numbers of the loop, beside what its passes did."""

from __future__ import annotations

from tests.integration.reconcile.conftest import PROJECT, World, becomes_ready

from tidegate_controlplane.domain.replicas import Exited


def sample(world: World, name: str, **labels: str) -> float | None:
    return world.metrics.registry.get_sample_value(name, {"deployment": "smol", **labels})


async def test_replicas_cold_starts_and_decisions_are_those_of_the_passes(world: World) -> None:
    view = await world.declare()
    await world.turn()
    assert sample(world, "tidegate_scaling_decisions_total", term="idle") == 1
    async with world.held(view.id) as request:
        await world.turn()
        assert sample(world, "tidegate_replicas", phase="requested") == 1
        assert sample(world, "tidegate_desired_replicas") == 1
        await world.turn(2, seconds=2)
        becomes_ready(world.running[0])
        await world.turn(seconds=1)
        await request
    assert sample(world, "tidegate_replicas", phase="ready") == 1
    assert sample(world, "tidegate_replicas", phase="requested") == 0
    assert sample(world, "tidegate_cold_start_seconds_count") == 1
    assert sample(world, "tidegate_cold_start_seconds_sum") == 5.0


async def test_a_replica_that_fails_is_ejected_from_the_phase_it_was_in(world: World) -> None:
    await world.declare(mode="realtime")
    await world.turn(2)
    becomes_ready(world.running[0])
    await world.turn(2)
    world.running[0].exited = Exited(-9, "Crashed", "killed by signal 9")
    await world.turn()
    name = "tidegate_replica_ejections_total"
    assert sample(world, name, phase="ready", reason="Crashed") == 1


async def test_the_numbers_of_a_deleted_deployment_go_with_it(world: World) -> None:
    await world.declare()
    await world.turn()
    assert sample(world, "tidegate_desired_replicas") == 0
    await world.deployments.delete(PROJECT, "smol")
    await world.turn(2)
    assert sample(world, "tidegate_desired_replicas") is None
    assert sample(world, "tidegate_replicas", phase="ready") is None
