"""Places behind one contract: who is asked, and when a place is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.integration.provision.conftest import launch

from tidegate.protocol.resources import LogLine, ReplicaPhase, ResolvedPlan, Severity
from tidegate_controlplane.domain.replicas import Missing, Observation, Running
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.provision import fleet as module
from tidegate_controlplane.provision.base import (
    FormerReplica,
    Holding,
    Launch,
    Notice,
    Provisioner,
    StartFailed,
)
from tidegate_controlplane.provision.fleet import Fleet

UP = Running(ReplicaPhase.READY)


@dataclass
class Place(Provisioner):
    """One whose replicas are only written down."""

    name: str
    started: dict[str, Launch] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    swept: list[FormerReplica] = field(default_factory=list)
    kept: Collection[str] | None = None
    news: list[Notice] = field(default_factory=list)
    closed: int = 0
    fault: str | None = None

    async def start(self, launch: Launch) -> None:
        self.started[launch.replica_id] = launch

    async def observe(self, replica_ids: list[str]) -> Mapping[str, Observation]:
        return {key: UP if key in self.started else Missing() for key in replica_ids}

    def known(self) -> list[str]:
        return list(self.started)

    def endpoint(self, replica_id: str) -> Endpoint | None:
        return Endpoint(replica_id, f"http://{self.name}", "token", 1)

    async def drain(self, replica_id: str) -> None:
        self.ended.append(f"drain {replica_id}")

    async def kill(self, replica_id: str) -> None:
        self.ended.append(f"kill {replica_id}")

    async def forget(self, replica_id: str) -> None:
        self.started.pop(replica_id, None)

    async def remove(self, holding: Holding) -> str | None:
        return f"{self.name} still has {holding.deployment_id}"

    async def keep_files(self, replica_ids: Collection[str]) -> None:
        self.kept = replica_ids

    async def sweep(self, former: Sequence[FormerReplica]) -> None:
        if self.fault:
            raise StartFailed(self.fault)
        self.swept += former

    async def logs(self, replica_id: str, offset: int, limit: int) -> list[LogLine]:
        del limit
        return [LogLine(replica=replica_id, offset=offset, text=self.name)]

    async def shortage(self, plan: ResolvedPlan) -> str | None:
        return f"{self.name} is full for {plan.provisioner}"

    def notices(self) -> list[Notice]:
        taken, self.news = self.news, []
        return taken

    async def end_all(self) -> None:
        self.started.clear()

    async def close(self) -> None:
        self.closed += 1


@dataclass
class World:
    """A fleet of one open place, and one that a test lets open or not."""

    here: Place = field(default_factory=lambda: Place("local"))
    there: Place = field(default_factory=lambda: Place("ray"))
    may_open: asyncio.Event = field(default_factory=asyncio.Event)
    opened: int = 0
    fault: str | None = None
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = Fleet({"local": self.here}, {"ray": self.open}, {"ray", "aws"})

    async def open(self) -> Provisioner:
        self.opened += 1
        await self.may_open.wait()
        if self.fault:
            raise StartFailed(self.fault)
        return self.there


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.fleet.close()


def at(place: str, key: str = "rep_1") -> Launch:
    made = launch(key=key)
    return replace(made, plan=made.plan.model_copy(update={"provisioner": place}))


async def started_at(world: World, place: str, key: str = "rep_1") -> None:
    """As the loop does it: again and again."""
    async with asyncio.timeout(60):
        while key not in world.fleet.known():
            await world.fleet.start(at(place, key))
            await asyncio.sleep(0)


async def test_each_replica_is_asked_for_at_the_place_of_its_plan(world: World) -> None:
    world.may_open.set()
    await started_at(world, "local", "rep_1")
    await started_at(world, "ray", "rep_2")
    assert (list(world.here.started), list(world.there.started)) == (["rep_1"], ["rep_2"])
    seen = await world.fleet.observe(["rep_1", "rep_2", "rep_3"])
    assert seen == {"rep_1": UP, "rep_2": UP, "rep_3": Missing()}
    endpoint = world.fleet.endpoint("rep_2")
    assert endpoint is not None
    assert endpoint.url == "http://ray"
    assert world.fleet.endpoint("rep_3") is None
    for call in (world.fleet.drain, world.fleet.kill):
        for key in ("rep_1", "rep_2", "rep_3"):
            await call(key)
    assert world.here.ended == ["drain rep_1", "kill rep_1"]
    assert world.there.ended == ["drain rep_2", "kill rep_2"]
    await world.fleet.forget("rep_2")
    assert world.fleet.known() == ["rep_1"]
    assert (await world.fleet.logs("rep_2", 7, 1))[0].text == "ray"


async def test_a_place_is_opened_once_and_only_when_it_is_needed(world: World) -> None:
    await world.fleet.start(at("local"))
    assert world.opened == 0
    for _ in range(3):
        await world.fleet.start(at("ray", "rep_2"))
        await asyncio.sleep(0)
    assert world.opened == 1
    assert await world.fleet.observe(["rep_2"]) == {"rep_2": Missing()}
    world.may_open.set()
    await started_at(world, "ray", "rep_2")
    await started_at(world, "ray", "rep_3")
    assert world.opened == 1


async def test_a_place_that_cannot_be_opened_fails_the_start_and_is_tried_again(
    world: World,
) -> None:
    world.fault = "ray needs its extra: pip install 'tidegate[ray]'"
    world.may_open.set()
    with pytest.raises(StartFailed, match="pip install"):
        await started_at(world, "ray")
    world.fault = None
    await started_at(world, "ray")


async def test_a_plan_is_told_what_its_place_is_short_of_or_why_it_cannot_be_opened(
    world: World,
) -> None:
    world.fault = "no node answers"
    world.may_open.set()
    assert await world.fleet.shortage(at("ray").plan) == "no node answers"
    world.fault = None
    assert await world.fleet.shortage(at("ray").plan) == "ray is full for ray"


async def test_a_place_that_is_not_set_up_says_what_to_set(world: World) -> None:
    with pytest.raises(StartFailed, match="'aws' is not set up here; set `aws` in the settings"):
        await started_at(world, "aws")
    holding = Holding("dep_1", "aws")
    await world.fleet.remove(holding)
    await asyncio.sleep(0)
    assert "set `aws` in the settings" in (await world.fleet.remove(holding) or "")


async def test_what_is_held_for_a_deployment_is_removed_at_its_place(world: World) -> None:
    assert await world.fleet.remove(Holding("dep_1", "local")) is None
    assert world.opened == 0
    assert await world.fleet.remove(Holding("dep_1", "ray")) == "ray is being opened"
    world.may_open.set()
    async with asyncio.timeout(60):
        while (said := await world.fleet.remove(Holding("dep_1", "ray"))) == "ray is being opened":
            await asyncio.sleep(0)
    assert said == "ray still has dep_1"


async def test_former_replicas_are_swept_where_they_ran_before_anything_starts_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", 0.0)
    here, there = (FormerReplica(f"rep_{p}", "dep_1", p) for p in ("local", "ray"))
    world.fault = "no node answers"
    world.may_open.set()
    await world.fleet.keep_files({"rep_9"})
    await world.fleet.sweep([here, there])
    assert (world.here.swept, world.there.swept) == ([here], [])
    async with asyncio.timeout(60):
        while not (news := world.fleet.notices()):
            await asyncio.sleep(0)
        world.fault = None
        while world.there.swept != [there]:
            await asyncio.sleep(0)
    (notice,) = news
    assert (notice.deployment_id, notice.severity) == ("dep_1", Severity.ERROR)
    assert "may still run: no node answers" in notice.message
    assert world.fleet.notices() == [], "what was told is not told again"
    await started_at(world, "ray")
    assert world.there.kept == {"rep_9"}


async def test_a_place_that_cannot_be_swept_is_used_again_only_after_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", 0.0)
    world.may_open.set()
    await started_at(world, "ray")
    world.there.fault = "no node answers"
    former = FormerReplica("rep_1", "dep_1", "ray")
    await world.fleet.sweep([former])
    assert (world.there.closed, world.fleet.known()) == (1, [])
    with pytest.raises(StartFailed, match="no node answers"):
        await started_at(world, "ray", "rep_2")
    world.there.fault = None
    await started_at(world, "ray", "rep_2")
    assert world.there.swept == [former]


async def test_a_place_that_was_closed_is_never_given_out_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", 60.0)
    world.may_open.set()
    await world.fleet.shortage(at("ray").plan)
    world.there.fault = "no node answers"
    await world.fleet.sweep([FormerReplica("rep_1", "dep_1", "ray")])
    closed, world.there = world.there, Place("ray")
    await started_at(world, "ray", "rep_2")
    assert (closed.closed, closed.started) == (1, {})
    assert list(world.there.started) == ["rep_2"]


async def test_what_is_said_of_a_place_while_it_is_opened_is_swept_too(world: World) -> None:
    sweeping, may_sweep = asyncio.Event(), asyncio.Event()

    class Slow(Place):
        async def sweep(self, former: Sequence[FormerReplica]) -> None:
            sweeping.set()
            await may_sweep.wait()
            self.swept += former

    world.there = Slow("ray")
    world.may_open.set()
    planning = asyncio.create_task(world.fleet.shortage(at("ray").plan))
    await sweeping.wait()
    former = FormerReplica("rep_1", "dep_1", "ray")
    await world.fleet.sweep([former])
    may_sweep.set()
    await planning
    assert world.there.swept == [former]


async def test_news_of_every_place_is_told_once(world: World) -> None:
    world.here.news.append(Notice("dep_1", "NodeLost", "a node is lost"))
    assert [each.message for each in world.fleet.notices()] == ["a node is lost"]
    assert world.fleet.notices() == []


async def test_logs_from_before_the_last_start_are_looked_for_everywhere(world: World) -> None:
    assert [line.text for line in await world.fleet.logs("rep_old", 0, 10)] == ["local"]


async def test_all_places_end_together_even_one_that_is_still_being_opened(world: World) -> None:
    await world.fleet.start(at("local"))
    await world.fleet.start(at("ray", "rep_2"))
    await world.fleet.end_all()
    assert world.fleet.known() == []
    await world.fleet.close()
    assert world.here.closed
