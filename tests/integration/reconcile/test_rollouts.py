"""A new revision takes over, or does not: every strategy, through the real loop and store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.integration.reconcile.conftest import PROJECT, Process, World, becomes_ready

from tidegate.protocol.resources import (
    Condition,
    DeploymentPhase,
    RollbackRequest,
    RolloutPhase,
    RolloutView,
)
from tidegate_controlplane.errors import Conflict, Invalid
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.gateway.hop import Question
from tidegate_controlplane.gateway.replica import Ask

D, R = DeploymentPhase, RolloutPhase
CANARY = {
    "strategy": "canary",
    "canary": {"steps": [{"weight": 20, "bake_s": 10}, {"weight": 50, "bake_s": 10}]},
    "rollback_on": {"min_requests": 10},
}


class Fleet:
    """One deployment with a revision that serves, and ways to look at a rollout of it."""

    def __init__(self, world: World, deployment_id: str, parts: dict[str, Any]) -> None:
        self.world = world
        self.id = deployment_id
        self.parts = parts

    @classmethod
    async def up(cls, world: World, **parts: Any) -> Fleet:
        """Declared and ready."""
        world.provisioner.on_start = becomes_ready
        view = await world.declare(mode="realtime", **parts)
        await world.turn(3)
        return cls(world, view.id, parts)

    async def change(self, sequences: int = 3, **parts: Any) -> None:
        """Declare a revision that runs so many sequences."""
        self.parts |= parts
        runtime = {"max_sequences": sequences}
        await self.world.declare(mode="realtime", runtime=runtime, **self.parts)

    async def rollout(self) -> RolloutView:
        return await self.world.deployments.rollouts.newest(PROJECT, "smol")

    async def standing(self) -> tuple[RolloutPhase, int, float]:
        view = await self.rollout()
        return view.phase, view.step, view.weight

    async def ask(self, wanted: Any) -> None:
        rollout = await self.rollout()
        await self.world.deployments.rollouts.request(PROJECT, rollout.id, wanted)

    async def current(self) -> Condition:
        view = await self.world.view()
        return next(c for c in view.conditions if c.type == "Current")

    def running(self) -> list[int]:
        """Sequences that the living processes run: 16 is the first revision."""
        return sorted(p.launch.plan.max_sequences for p in self.world.running)

    async def answers(self, number: int = 100) -> list[int]:
        """Which revisions answer so many requests, by their sequences."""
        found = []
        for _ in range(number):
            async with self.world.endpoints.acquire(self.id, 1e9) as slot:
                process = self.world.provisioner.processes[slot.replica_id]
                found.append(process.launch.plan.max_sequences)
        return found

    async def exchanges(self, number: int, *, failing: int | None = None) -> None:
        """Requests whose answers the trial sees; those of the revision `failing` fail."""
        served: Any = Served(self.id, PROJECT, "smol", None, None, self.world.clock.now())  # type: ignore[arg-type]
        for _ in range(number):
            async with self.world.endpoints.acquire(self.id, 1e9) as slot:
                await self._exchange(served, slot.endpoint, failing)

    async def _exchange(self, served: Served, endpoint: Endpoint, failing: int | None) -> None:
        sequences = self.world.provisioner.processes[endpoint.replica_id].launch.plan.max_sequences
        question = Question("/v1/completions", b"{}", "req_1", Ask(), whole=True)
        told = self.world.trials.exchange(served, endpoint, question)
        told.began(500 if sequences == failing else 200, b"{}")

        async def come() -> AsyncIterator[bytes]:
            yield b"{}"

        assert [piece async for piece in told.watch(come())] == [b"{}"]


# --- rolling --------------------------------------------------------------------------------------


async def test_a_rolling_update_ends_promoted_and_says_so_in_its_events(world: World) -> None:
    fleet = await Fleet.up(world, scaling={"min_replicas": 2})
    await fleet.change()
    await world.turn(4)
    view = await fleet.rollout()
    assert (view.phase, view.from_revision, view.to_revision) == (R.PROMOTED, 1, 2)
    assert (view.weight, view.finished_at) == (100, world.clock.now())
    assert fleet.running() == [3, 3]
    assert (await world.view()).observed_generation == 2
    reasons = [reason for reason, _ in await world.events()]
    assert [r for r in reasons if r.startswith("Rollout")] == [
        "RolloutStarted",
        "RolloutShifting",
        "RolloutPromoted",
    ]


async def test_without_room_beside_it_a_revision_is_replaced_in_place_and_requests_are_held(
    world: World,
) -> None:
    fleet = await Fleet.up(world)
    (row,) = await world.rows()
    one = (await world.deployments.read.revisions(PROJECT, "smol", None, 5)).data[0]
    world.memory_bytes = int(1.5 * one.plan.memory_bytes)
    world.reconciler._memory_bytes = world.memory_bytes
    await fleet.change()
    await world.turn()
    assert await world.phases() == ["draining"]
    async with world.held(fleet.id) as request:
        await world.turn(4)
        assert (await request).replica_id != row.id
    assert fleet.running() == [3]
    assert (await fleet.rollout()).phase is R.PROMOTED


async def test_a_deployment_that_can_never_have_room_is_refused_with_the_figures(
    world: World,
) -> None:
    with pytest.raises(Invalid, match="do not fit") as caught:
        await world.declare(mode="realtime", scaling={"min_replicas": 900})
    assert [issue.field for issue in caught.value.issues] == ["scaling.min_replicas"]


async def test_a_canary_without_room_for_both_is_refused_and_told_what_to_use(
    world: World,
) -> None:
    fleet = await Fleet.up(world)
    one = (await world.deployments.read.revisions(PROJECT, "smol", None, 5)).data[0]
    planner: Any = world.deployments._planner
    planner.capabilities = type(planner.capabilities)(
        **{**vars(planner.capabilities), "memory_bytes": int(1.5 * one.plan.memory_bytes)}
    )
    with pytest.raises(Invalid, match="use rolling") as caught:
        await fleet.change(rollout=CANARY)
    assert caught.value.issues[0].field == "rollout.strategy"


async def test_a_replica_without_room_is_not_requested_and_the_deployment_says_so(
    world: World,
) -> None:
    await Fleet.up(world)
    one = (await world.deployments.read.revisions(PROJECT, "smol", None, 5)).data[0]
    world.reconciler._memory_bytes = int(2.5 * one.plan.memory_bytes)
    await world.declare(mode="realtime", scaling={"min_replicas": 3})
    await world.turn(3)
    view = await world.view()
    assert len(world.running) == 2
    assert (view.phase, view.replicas.ready) == (D.DEGRADED, 2)
    assert "one more replica needs" in view.message


# --- canary ---------------------------------------------------------------------------------------


async def test_a_canary_takes_its_share_bakes_and_takes_all(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    assert await fleet.standing() == (R.BAKING, 0, 20)
    assert fleet.running() == [3, 16]
    assert (await fleet.answers()).count(3) == 20
    assert (await world.view()).phase is D.UPDATING
    await world.turn(seconds=9)
    assert (await fleet.rollout()).step == 0
    await world.turn(3, seconds=1)
    assert await fleet.standing() == (R.BAKING, 1, 50)
    assert (await fleet.answers()).count(3) == 50
    await world.turn(4, seconds=10)
    assert await fleet.standing() == (R.PROMOTED, 2, 100)
    assert fleet.running() == [3]
    assert (await world.view()).phase is D.READY


async def test_an_aborted_canary_gives_the_traffic_back_at_once(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await fleet.ask("abort")
    await world.turn()
    assert set(await fleet.answers()) == {16}
    await world.turn(2)
    assert (await fleet.rollout()).phase is R.ROLLED_BACK
    assert fleet.running() == [16]
    view, current = await world.view(), await fleet.current()
    assert (view.phase, view.generation, view.observed_generation) == (D.READY, 2, 1)
    assert (current.status, current.reason, current.message) == (
        False,
        "RolledBack",
        "aborted on request",
    )
    await world.turn(3, seconds=100)
    assert fleet.running() == [16], "it is not tried again by itself"


async def test_a_promoted_canary_skips_its_steps(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await fleet.ask("promote")
    await world.turn(3)
    assert (await fleet.rollout()).phase is R.PROMOTED
    assert fleet.running() == [3]
    await fleet.ask("promote")
    with pytest.raises(Conflict, match="use rollback"):
        await fleet.ask("abort")


async def test_a_canary_that_fails_its_requests_is_rolled_back_with_the_figures(
    world: World,
) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await fleet.exchanges(40, failing=3)
    await world.turn()
    assert (await fleet.rollout()).phase is R.BAKING, "8 requests are too few to judge by"
    await fleet.exchanges(40, failing=3)
    await world.turn(3)
    view = await fleet.rollout()
    assert (view.phase, view.reason) == (R.ROLLED_BACK, "ErrorRate")
    assert "failed 16 of 16 requests (100.0%), the former one 0 of 64" in view.message
    assert view.comparison and (view.comparison.new.failed, view.comparison.stable.answered) == (
        16,
        64,
    )
    assert fleet.running() == [16]


async def test_a_canary_that_crashes_each_time_is_rolled_back(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    world.provisioner.on_start = Process.crash
    await fleet.change()
    await world.turn(20, seconds=1)
    view = await fleet.rollout()
    assert (view.phase, view.reason) == (R.ROLLED_BACK, "RevisionFailing")
    assert fleet.running() == [16]


async def test_a_canary_that_dies_while_it_bakes_begins_the_bake_anew(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await world.turn(seconds=9)
    next(p for p in world.running if p.launch.plan.max_sequences == 3).crash()
    await world.turn()
    assert (await fleet.standing())[0] is R.SHIFTING
    assert set(await fleet.answers()) == {16}
    await world.turn(3, seconds=1)
    assert await fleet.standing() == (R.BAKING, 0, 20)
    await world.turn(seconds=9)
    assert (await fleet.rollout()).step == 0


async def test_a_restart_of_the_control_plane_goes_on_with_the_rollout(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await world.turn(seconds=9)
    world.restart()
    world.provisioner.on_start = becomes_ready
    await world.reconciler.recover()
    await world.turn(3)
    assert await fleet.standing() == (R.BAKING, 0, 20)
    await world.turn(12, seconds=5)
    assert (await fleet.rollout()).phase is R.PROMOTED
    assert fleet.running() == [3]


# --- blue and green -------------------------------------------------------------------------------

BLUE_GREEN = {"strategy": "blue_green", "bake_s": 30}


async def test_blue_green_switches_all_traffic_at_once_and_keeps_the_old_set(
    world: World,
) -> None:
    fleet = await Fleet.up(world, rollout=BLUE_GREEN, scaling={"min_replicas": 2})
    slow: list[Process] = []
    world.provisioner.on_start = slow.append
    await fleet.change()
    await world.turn(2)
    becomes_ready(slow[0])
    await world.turn(2)
    assert set(await fleet.answers()) == {16}
    becomes_ready(slow[1])
    await world.turn(2)
    assert set(await fleet.answers()) == {3}
    assert fleet.running() == [3, 3, 16, 16]
    await world.turn(3, seconds=31)
    assert fleet.running() == [3, 3]
    assert (await fleet.rollout()).phase is R.PROMOTED


async def test_an_abort_of_blue_green_switches_back_at_once(world: World) -> None:
    fleet = await Fleet.up(world, rollout=BLUE_GREEN, scaling={"min_replicas": 2})
    await fleet.change()
    await world.turn(3)
    assert set(await fleet.answers()) == {3}
    await fleet.ask("abort")
    await world.turn()
    assert set(await fleet.answers()) == {16}
    await world.turn(3)
    assert fleet.running() == [16, 16]


# --- declared anew, scaled and deleted meanwhile --------------------------------------------------


async def test_a_new_declaration_replaces_the_canary_and_the_stable_revision_stays(
    world: World,
) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change(3)
    await world.turn(3)
    first = await fleet.rollout()
    await fleet.change(4)
    await world.turn(4)
    page = await world.deployments.rollouts.page(PROJECT, "smol", None, 10)
    assert [(v.phase, v.reason) for v in page.data] == [
        (R.ROLLED_BACK, "Superseded"),
        (R.BAKING, "Baking"),
    ]
    assert page.data[0].id == first.id
    assert (page.data[1].from_revision, page.data[1].to_revision) == (1, 3)
    assert fleet.running() == [4, 16]


async def test_declaring_the_stable_revision_again_ends_the_canary_without_a_rollout(
    world: World,
) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change(3)
    await world.turn(3)
    await fleet.change(16)
    await world.turn(3)
    assert (await fleet.rollout()).reason == "Superseded"
    assert fleet.running() == [16]
    view = await world.view()
    assert (view.phase, view.generation, view.observed_generation) == (D.READY, 3, 3)


async def test_scaling_during_a_canary_goes_on_with_it(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await fleet.change(scaling={"min_replicas": 4})
    await world.turn(4, seconds=1)
    assert await fleet.standing() == (R.BAKING, 0, 20)
    assert fleet.running() == [3, 16, 16, 16, 16]
    await world.turn(8, seconds=10)
    assert fleet.running() == [3, 3, 3, 3]


async def test_a_changed_rollout_is_for_the_next_one(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await fleet.change(rollout={"strategy": "rolling"})
    await world.turn(3)
    assert await fleet.standing() == (R.BAKING, 0, 20)


async def test_deleting_during_a_canary_ends_it_and_every_replica(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await world.deployments.delete(PROJECT, "smol")
    assert (await fleet.rollout()).reason == "Deleted"
    await world.turn(3)
    assert fleet.running() == []


# --- rolling back ---------------------------------------------------------------------------------


async def test_a_rollback_declares_the_former_revision_again_at_once(world: World) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change(scaling={"min_replicas": 2})
    await world.turn(12, seconds=10)
    assert fleet.running() == [3, 3]
    view = await world.deployments.rollback(PROJECT, "smol", RollbackRequest())
    assert (view.generation, view.spec.runtime.max_sequences) == (3, 16)
    assert view.spec.scaling.min_replicas == 2, "scaling belongs to the present"
    await world.turn(4)
    assert fleet.running() == [16, 16]
    rollout = await fleet.rollout()
    assert (rollout.phase, rollout.from_revision, rollout.to_revision) == (R.PROMOTED, 2, 1)
    assert (await world.view()).observed_generation == 3


async def test_a_rollback_plans_for_the_adapters_that_are_declared_now(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "adapter_config.json").write_text("{}")
    factors = {f"m.lora_{part}.weight": np.zeros((16, 16), dtype=np.float16) for part in "AB"}
    save_file(factors, tmp_path / "law" / "adapter_model.safetensors")
    fleet = await Fleet.up(world)
    await fleet.change()
    await world.turn(12, seconds=10)
    await world.deployments.add_adapter(PROJECT, "smol", "law", str(tmp_path / "law"))
    before = await world.deployment_row(fleet.id)
    await world.deployments.rollback(PROJECT, "smol", RollbackRequest())
    after = await world.deployment_row(fleet.id)
    assert [row.plan["adapters_bytes"] for row in (before, after)] == [2 * 2 * 16 * 16] * 2


async def test_a_rollback_during_a_canary_leaves_the_stable_revision_declared(
    world: World,
) -> None:
    fleet = await Fleet.up(world, rollout=CANARY)
    await fleet.change()
    await world.turn(3)
    await world.deployments.rollback(PROJECT, "smol", RollbackRequest())
    await world.turn(3)
    assert fleet.running() == [16]
    view = await world.view()
    assert (view.phase, view.generation, view.observed_generation) == (D.READY, 3, 3)


async def test_there_is_nothing_to_roll_back_to_before_a_second_revision(world: World) -> None:
    await Fleet.up(world)
    with pytest.raises(Conflict, match="no former revision"):
        await world.deployments.rollback(PROJECT, "smol", RollbackRequest())
    with pytest.raises(Conflict, match="the declared one already"):
        await world.deployments.rollback(PROJECT, "smol", RollbackRequest(to=1))
    with pytest.raises(Invalid, match="has no revision 7") as caught:
        await world.deployments.rollback(PROJECT, "smol", RollbackRequest(to=7))
    assert caught.value.issues[0].field == "to"


async def test_the_same_declaration_after_a_rollback_is_another_try(world: World) -> None:
    fleet = await Fleet.up(world)
    world.provisioner.on_start = lambda process: process.refuse("too large")
    await fleet.change()
    await world.turn(4)
    assert (await fleet.rollout()).phase is R.ROLLED_BACK
    await fleet.world.deployments.scale(PROJECT, "smol", _bounds(2))
    await world.turn(2)
    assert (await fleet.rollout()).phase is R.ROLLED_BACK, "scaling is no declaration of it"
    world.provisioner.on_start = becomes_ready
    world.clock.elapsed_s += 1
    fleet.parts["scaling"] = {"max_replicas": 2}
    await fleet.change()
    assert (await fleet.current()).reason == "RollingOut"
    await world.turn(4)
    assert (await fleet.rollout()).phase is R.PROMOTED


def _bounds(maximum: int) -> Any:
    from tidegate.protocol.resources import ScaleRequest

    return ScaleRequest(max_replicas=maximum)
