"""Two control planes of one database: each serves and works, one reconciles."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlmodel import select
from tests.integration.peers.conftest import PEERS, PRINCIPAL, until

from tidegate.protocol.resources import DeploymentPhase
from tidegate_controlplane.errors import NotFound, StartError, Unauthenticated
from tidegate_controlplane.provision.process import is_alive
from tidegate_controlplane.store import leadership
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.leadership import read_claim
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, ControlPlane, Replica


async def replicas(plane):
    return await plane.services.database.read(lambda s: list(s.exec(select(Replica))))


async def test_what_is_declared_at_a_follower_wakes_for_its_request_and_answers_everywhere(
    platform, two
):
    leader, follower = two
    await follower.declare(platform.model)
    answer = await follower.ask("hello")
    assert answer.startswith("echo hello by rep_")
    await until(lambda: bool(leader.services.catalog.get(DEFAULT_PROJECT, "smol")))
    assert await leader.ask("hello") == answer, "one replica, of the leader, for both"
    (replica,) = await replicas(leader)
    home = platform.settings("one").replicas_dir / replica.id
    assert home.is_dir(), "it is a child of the leader"


async def test_a_deployment_that_a_follower_wakes_is_not_put_to_sleep_under_its_requests(
    platform, two
):
    """What the leader's autoscaler sees is what all are asked for."""
    leader, follower = two
    await follower.declare(platform.model)
    await follower.ask("hello")
    served = follower.services.catalog.get(DEFAULT_PROJECT, "smol")
    endpoints = follower.services.endpoints
    async with endpoints.acquire(served.deployment_id, 1e9) as slot:
        seen = leader.services.endpoints
        await until(lambda: seen.demand(served.deployment_id).in_flight == 1)
        assert seen.in_flight_on(served.deployment_id, slot.replica_id) == 1
        assert seen.own_demand(served.deployment_id).in_flight == 0
    await until(lambda: seen.demand(served.deployment_id).in_flight == 0)


async def test_work_submitted_at_one_is_run_by_the_other_and_awaited_where_it_was_submitted(
    platform, two
):
    leader, follower = two
    await leader.declare(platform.model, scaling={"min_replicas": 1})
    await until(lambda: bool(follower.services.catalog.get(DEFAULT_PROJECT, "smol")))
    for here, there in ((leader, follower), (follower, leader)):
        await here.work._dispatching.stop()
        key = await here.submit("hello")
        async with asyncio.timeout(60):  # the wait itself would be longer
            done = await here.services.invocations.wait(PRINCIPAL, key, 600.0)
        assert done.status == "succeeded"
        result = await there.services.invocations.result(PRINCIPAL, key)
        assert b"echo hello" in result
        here.work._dispatching.start()


async def test_a_deployment_deleted_at_one_is_gone_at_both(platform, two):
    leader, follower = two
    await follower.declare(platform.model, scaling={"min_replicas": 1})
    await follower.ask("hello")
    await follower.services.deployments.delete(DEFAULT_PROJECT, "smol")
    await until(lambda: leader.services.catalog.get(DEFAULT_PROJECT, "smol") is None)

    async def is_gone() -> bool:
        try:
            view = await follower.services.deployments.read.get(DEFAULT_PROJECT, "smol")
        except NotFound:
            return True
        return view.phase is DeploymentPhase.DELETED

    await until(is_gone)
    assert all(row.phase == "terminated" for row in await replicas(leader))


async def test_a_key_revoked_at_one_is_refused_by_the_other(two):
    leader, follower = two
    key_id, secret = await leader.make_key()
    await follower.services.keys.authenticate(f"Bearer {secret}")
    await leader.services.keys.revoke(DEFAULT_PROJECT, key_id)

    async def is_refused() -> bool:
        try:
            await follower.services.keys.authenticate(f"Bearer {secret}")
        except Unauthenticated:
            return True
        return False

    await until(is_refused)


async def test_a_leader_that_stops_hands_over_at_once(platform):
    async with AsyncExitStack() as stack:
        first = await platform.plane("one", stack)
        second = await platform.plane("two", peers=PEERS.model_copy(update={"lease_s": 600.0}))
        await second.declare(platform.model, scaling={"min_replicas": 1})
        before = await second.ask("hello")
        assert first.leads
    await until(lambda: second.leads)
    assert (await second.ask("hello")) != before, "the new leader starts its own"
    rows = await second.services.database.read(lambda s: list(s.exec(select(ControlPlane))))
    assert len(rows) == 1, "the first one took its row with it"


async def test_a_leader_that_stops_lets_the_requests_of_the_others_end(platform, monkeypatch):
    monkeypatch.setenv("REPLICA_S", "0.8")
    async with AsyncExitStack() as stack:
        await platform.plane("one", stack, shutdown_s=20.0)
        second = await platform.plane("two")
        await second.declare(platform.model, scaling={"min_replicas": 1})
        served = second.services.catalog.get(DEFAULT_PROJECT, "smol")
        asked = asyncio.create_task(second.ask("hello"))
        endpoints = second.services.endpoints
        await until(lambda: endpoints.own_demand(served.deployment_id).in_flight == 1)
        (first,) = await replicas(second)
    assert asked.done(), "the leader has gone, and its replicas with it"
    assert await asked == f"echo hello by {first.id}"


async def test_a_deposed_leader_ends_its_replicas_and_leads_again_when_the_other_is_gone(platform):
    plane = await platform.plane("one", peers=PEERS.model_copy(update={"lease_s": 600.0}))
    await plane.declare(platform.model, scaling={"min_replicas": 1})
    first = await plane.ask("hello")
    database = plane.services.database
    (process,) = [(row.pid, row.process_start) for row in await replicas(plane)]

    async def take_over() -> bool:  # as a process that dies right afterwards
        seen = await database.read(read_claim)
        unit = Guarded(lambda s: leadership.take_over(s, seen, "cp_other"))
        return await database.write(unit) is not None

    await until(take_over)
    await until(lambda: not plane.leads)
    await until(lambda: not is_alive(*process))
    await database.write(Guarded(lambda s: leadership.step_down(s, 2)))
    await until(lambda: plane.leads)
    assert (await database.read(read_claim)).epoch == 3
    assert (await plane.ask("hello")) != first


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"objects": "/elsewhere"}, "the same --objects"), ({}, "another pepper")],
)
async def test_one_that_cannot_be_of_the_same_platform_does_not_start(
    platform, tmp_path, changes, why
):
    await platform.plane("one")
    objects = {key: str(tmp_path / value[1:]) for key, value in changes.items()}
    settings = platform.settings("two", **objects)
    if not changes:
        settings.pepper_path.write_bytes(bytes(32))
    from tidegate_controlplane.process import running

    with pytest.raises(StartError, match=why):
        async with running(settings):
            pass


async def test_one_that_disagrees_with_a_dead_one_starts(platform, tmp_path):
    async with AsyncExitStack() as stack:
        dead = await platform.plane("one", stack)
        rows = await dead.services.database.read(lambda s: list(s.exec(select(ControlPlane))))
    left = rows[0].model_copy()  # as a process that was killed leaves it

    def write(session):
        session.merge(left)

    from tidegate_controlplane.store.open import open_database

    database = open_database(platform.database, tmp_path / "none")
    await database.write(write)
    database.close()
    alone = await platform.plane("two", objects=str(tmp_path / "elsewhere"))
    await until(lambda: alone.leads)


async def test_a_replica_is_not_drained_before_every_plane_knows_that_it_goes(platform):
    patient = PEERS.model_copy(update={"stale_s": 600.0})
    leader = await platform.plane("one", peers=patient)
    follower = await platform.plane("two")
    await follower.declare(platform.model, scaling={"min_replicas": 1})
    await follower.ask("hello")
    membership = follower.services.endpoints.elsewhere
    await membership._loop.stop()  # it hears of nothing, and would still choose the replica
    await leader.services.deployments.delete(DEFAULT_PROJECT, "smol")

    async def phase() -> str:
        return (await replicas(leader))[0].phase

    async def drains() -> bool:
        return await phase() == "draining"

    await until(drains)
    await asyncio.sleep(0.5)
    assert await drains(), "it would have ended within this time"
    assert (await follower.ask("hello")).startswith("echo hello")
    membership._loop.start()

    async def has_ended() -> bool:
        return await phase() == "terminated"

    await until(has_ended)
