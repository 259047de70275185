"""Every decision that changes something is recorded, with what it was made from."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlmodel import func, select
from tests.integration.reconcile.conftest import PROJECT, World, becomes_ready

from tidegate.protocol.resources import DecisionView
from tidegate_controlplane.domain.autoscale import Bounds, Decision, Signals, Term, decide
from tidegate_controlplane.errors import BadRequest, NotFound
from tidegate_controlplane.store import decisions
from tidegate_controlplane.store.tables import Decision as Row


async def recorded(world: World, after: str | None = None, limit: int = 50) -> list[DecisionView]:
    return (await world.deployments.read.decisions(PROJECT, "smol", after, limit)).data


async def test_a_request_at_zero_is_recorded_with_its_reason_and_all_signals(world: World) -> None:
    view = await world.declare()
    await world.turn()
    async with world.held(view.id):
        await world.turn()
    asleep, woken = await recorded(world)
    assert (asleep.desired, asleep.term) == (0, "idle")
    assert (woken.desired, woken.called_for, woken.term) == (1, 1, "work")
    assert woken.sentence == "1 replica: 0 in flight, 1 held, 0 queued"
    assert woken.inputs["signals"]["held"] == 1
    assert woken.inputs["bounds"]["idle_timeout_s"] == 300


async def test_a_recorded_decision_is_made_again_from_its_inputs(world: World) -> None:
    view = await world.declare(scaling={"max_replicas": 3, "idle_timeout_s": "auto"})
    async with world.held(view.id):
        await world.turn(2)
    found = (await recorded(world))[-1]
    signals = found.inputs["signals"] | {"starting": tuple(found.inputs["signals"]["starting"])}
    again = decide(Bounds(**found.inputs["bounds"]), Signals(**signals))
    assert (again.desired, again.term.value, again.sentence) == (
        found.desired,
        found.term,
        found.sentence,
    )


async def test_the_same_decision_again_is_no_news(world: World) -> None:
    await world.declare(mode="realtime")
    world.provisioner.on_start = becomes_ready
    await world.turn(20, seconds=1)
    assert [(d.desired, d.term) for d in await recorded(world)] == [(1, "minimum")]


async def test_another_reason_for_the_same_count_is_news_only_after_a_while(world: World) -> None:
    view = await world.declare()
    world.provisioner.on_start = becomes_ready
    async with world.held(view.id) as request:
        await world.turn(3)
        await request
    await world.turn(seconds=1)
    assert [d.term for d in await recorded(world)] == ["work"]
    await world.turn(seconds=10)
    assert [d.term for d in await recorded(world)] == ["work", "idle_grace"]


async def test_a_starting_replica_is_counted_with_the_time_it_will_take(world: World) -> None:
    view = await world.declare(scaling={"max_replicas": 5})
    async with world.held(view.id):
        await world.turn()
        await world.turn(seconds=4)
        memory = world.reconciler._memory[view.id]
        memory.recorded = None
        await world.turn()
    assert (await recorded(world))[-1].inputs["signals"]["starting"] == [6.0]


async def test_a_schedule_raises_the_minimum_while_it_holds(world: World) -> None:
    entry = {"cron": "0 1 * * *", "duration_s": 3600, "min_replicas": 2}
    await world.declare(scaling={"max_replicas": 3, "schedule": [entry]})
    world.provisioner.on_start = becomes_ready
    await world.turn(seconds=3599)
    assert world.running == []
    await world.turn(seconds=1)
    assert len(world.running) == 2
    assert (await recorded(world))[-1].term == "schedule"
    await world.turn(3, seconds=3600)
    assert world.running == []


async def test_decisions_come_in_pages_of_their_own_deployment(world: World) -> None:
    view = await world.declare()
    await world.declare("other")
    await world.turn()
    async with world.held(view.id):
        await world.turn()
    page = await world.deployments.read.decisions(PROJECT, "smol", None, 1)
    assert (len(page.data), page.has_more) == (1, True)
    assert [d.term for d in await recorded(world, page.next)] == ["work"]
    with pytest.raises(NotFound):
        await world.deployments.read.decisions(PROJECT, "none", None, 1)
    with pytest.raises(BadRequest):
        await recorded(world, "x")


async def test_the_newest_decisions_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "KEPT", 5)
    view, other = await world.declare(), await world.declare("other")
    await world.turn()
    made = _decision()
    now = world.clock.now()
    for desired in range(12):
        one = replace(made, desired=desired)
        await world.database.write(
            lambda s, one=one: decisions.add_decision(s, view.id, one, now)  # type: ignore[misc]
        )
    assert [d.desired for d in await recorded(world)] == [7, 8, 9, 10, 11]
    count = await world.database.read(
        lambda s: s.exec(select(func.count()).where(Row.deployment_id == other.id)).one()
    )
    assert count == 1


async def test_a_deployment_that_is_deleted_leaves_its_decisions_behind(world: World) -> None:
    view = await world.declare()
    await world.turn()
    await world.deployments.delete(PROJECT, "smol")
    await world.turn(2)
    await asyncio.sleep(0)
    count = await world.database.read(
        lambda s: s.exec(select(func.count()).where(Row.deployment_id == view.id)).one()
    )
    assert count == 1


def _decision() -> Decision:
    signals = Signals(0, 0, 0, None, 0, (), 10.0, 16.0)
    return Decision(0, 0, Term.IDLE, Bounds(0, 1, None, 300.0, 10.0), signals)
