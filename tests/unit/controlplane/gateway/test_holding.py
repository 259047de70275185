"""Requests that wait for a slot: paced, in order, bounded, never lost."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.domain.ejection import FAILURES
from tidegate_controlplane.domain.prefix import BLOCK_BYTES, prefix_blocks
from tidegate_controlplane.domain.routing import slots
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.replica import Ask

CLOCK = SystemClock()
A = Endpoint("rep_a", "http://a", "token", capacity=4)
B = Endpoint("rep_b", "http://b", "token", capacity=4)


def asked(project: str = "prj", priority: Priority = Priority.SYNC, **fields: Any) -> Ask:
    return Ask(project, priority, **fields)


class Requests:
    """Requests that hold their slot until they are told to end."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.admitted: list[Ask] = []
        self.on: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.Event] = []

    async def send(self, *asks: Ask) -> None:
        for ask in asks:
            self.tasks.append(asyncio.create_task(self._run(ask)))
        await turns()

    async def end(self, number: int = 1) -> None:
        """End those that were admitted first."""
        for _ in range(number):
            self._ends.pop(0).set()
        await turns()

    async def _run(self, ask: Ask) -> None:
        async with self.endpoints.acquire("dep", CLOCK.monotonic() + 60, ask) as slot:
            self.admitted.append(ask)
            self.on.append(slot.replica_id)
            slot.begun()
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints(CLOCK, hold_queue=1000, project_hold_queue=600)


@pytest.fixture
async def requests(endpoints: Endpoints) -> Any:
    found = Requests(endpoints)
    yield found
    for task in found.tasks:
        task.cancel()
    await asyncio.gather(*found.tasks, return_exceptions=True)
    demand = endpoints.demand("dep")
    assert (demand.held, demand.in_flight, demand.held_tokens, demand.in_flight_tokens) == (0,) * 4


async def test_a_burst_reaches_a_new_replica_at_the_pace_of_its_slots(
    endpoints: Endpoints,
) -> None:
    most, answered = 0, []

    async def request(number: int) -> None:
        nonlocal most
        async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()):
            most = max(most, endpoints.in_flight_on("dep", "rep_a"))
            await asyncio.sleep(0)
            answered.append(number)

    burst = [asyncio.create_task(request(number)) for number in range(500)]
    await turns()
    assert endpoints.demand("dep").held == 500
    endpoints.publish("dep", [A])
    await asyncio.gather(*burst)
    assert answered == list(range(500)), "in the order of their arrival"
    assert most == slots(A.capacity)


async def test_beyond_its_slots_requests_wait_where_they_can_still_go_elsewhere(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A])
    await requests.send(*(asked() for _ in range(8)))
    assert (endpoints.in_flight_on("dep", "rep_a"), endpoints.demand("dep").held) == (5, 3)
    endpoints.publish("dep", [A, B])
    await turns()
    assert requests.on[5:] == ["rep_b"] * 3


async def test_synchronous_work_passes_what_can_wait_and_projects_take_turns(
    endpoints: Endpoints, requests: Requests
) -> None:
    await requests.send(
        asked("a", Priority.BATCH),
        asked("a", Priority.ASYNC),
        *(asked("a") for _ in range(3)),
        asked("b"),
    )
    endpoints.publish("dep", [Endpoint("rep_a", "http://a", "t", capacity=1)])
    for _ in range(6):
        await turns()
        await requests.end()
    assert [(each.project_id, each.priority.name) for each in requests.admitted] == [
        ("a", "SYNC"),
        ("b", "SYNC"),
        ("a", "SYNC"),
        ("a", "SYNC"),
        ("a", "ASYNC"),
        ("a", "BATCH"),
    ]


async def test_work_that_can_wait_takes_no_room_from_work_that_cannot(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A])
    await requests.send(*(asked(priority=Priority.BATCH) for _ in range(6)))
    assert endpoints.demand("dep").held == 1
    assert not endpoints.has_room("dep", Priority.BATCH)
    assert endpoints.has_room("dep", Priority.SYNC)
    await requests.send(asked())
    assert requests.admitted[-1].priority is Priority.SYNC


async def test_nobody_overtakes_those_of_the_same_priority(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
        endpoints.full("dep", slot, retry_after_s=0.01)
    await requests.send(asked(prompt_tokens=1), asked(prompt_tokens=2))
    time.sleep(0.02)  # there is room, and nobody has been told yet
    await requests.send(asked(prompt_tokens=3))
    assert [each.prompt_tokens for each in requests.admitted] == [1, 2, 3]


async def test_a_project_holds_no_more_than_its_bound_over_all_its_deployments(
    endpoints: Endpoints, requests: Requests
) -> None:
    await requests.send(*(asked("greedy") for _ in range(600)))
    with pytest.raises(Unavailable, match="600 requests are already held for this project"):
        async with endpoints.acquire("another", CLOCK.monotonic() + 60, asked("greedy")):
            pass
    await requests.send(asked("modest"))
    assert endpoints.demand("dep").held == 601


@pytest.mark.parametrize("seed", range(5))
async def test_a_scale_down_that_races_an_arrival_fails_no_request(
    endpoints: Endpoints, seed: int
) -> None:
    order = random.Random(seed)
    ended: set[str] = set()

    async def request() -> None:
        async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
            assert slot.replica_id not in ended, "the replica's process is gone"
            await turns(order.randrange(3))
            assert slot.replica_id not in ended, "the replica's process is gone"

    for number in range(100):
        former = Endpoint(f"rep_{number}", "http://a", "token", capacity=4)
        endpoints.publish("dep", [former])
        racing = [asyncio.create_task(request()) for _ in range(order.randrange(1, 12))]
        await turns(order.randrange(4))
        endpoints.publish("dep", [])
        while endpoints.in_flight_on("dep", former.replica_id):
            await turns(1)
        ended.add(former.replica_id)
        await turns(order.randrange(3))
        endpoints.publish("dep", [B])
        await asyncio.gather(*racing)
    assert endpoints.demand("dep").in_flight == 0


async def test_a_cached_beginning_is_followed_to_its_replica(
    endpoints: Endpoints, requests: Requests
) -> None:
    prefix = prefix_blocks("prj", b"s" * 64 * BLOCK_BYTES)
    endpoints.publish("dep", [A, B])
    await requests.send(asked(), asked(prefix=prefix, prompt_tokens=100), asked())
    await requests.send(asked(prefix=prefix, prompt_tokens=100))
    assert requests.on == ["rep_a", "rep_b", "rep_a", "rep_b"]


async def test_a_large_request_counts_for_many_small_ones(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A, B])
    await requests.send(asked(prompt_tokens=8000), *(asked(most_tokens=10) for _ in range(4)))
    assert requests.on == ["rep_a"] + ["rep_b"] * 4


async def test_revisions_have_their_shares_also_while_one_of_them_is_full(
    endpoints: Endpoints, requests: Requests
) -> None:
    old = Endpoint("rep_a", "http://a", "t", capacity=100, revision_id="old")
    new = Endpoint("rep_b", "http://b", "t", capacity=100, revision_id="new")
    endpoints.publish("dep", [old, new], weights={"old": 0.9, "new": 0.1})
    await requests.send(*(asked() for _ in range(40)))
    assert requests.on.count("rep_b") == 4
    small = Endpoint("rep_b", "http://b", "t", capacity=4, revision_id="new")
    endpoints.publish("dep", [old, small], weights={"old": 0.1, "new": 0.9})
    await requests.send(*(asked() for _ in range(20)))
    assert requests.on[40:].count("rep_b") == 1
    assert endpoints.demand("dep").held == 0


async def test_a_revision_without_a_share_serves_only_when_there_is_no_other(
    endpoints: Endpoints, requests: Requests
) -> None:
    old = Endpoint("rep_a", "http://a", "t", capacity=4, revision_id="old")
    new = Endpoint("rep_b", "http://b", "t", capacity=4, revision_id="new")
    endpoints.publish("dep", [old, new], weights={"new": 1.0})
    await requests.send(*(asked() for _ in range(6)))
    assert requests.on == ["rep_b"] * 5
    endpoints.publish("dep", [old], weights={"new": 1.0})
    await turns()
    assert requests.on[5:] == ["rep_a"]


async def test_failures_in_a_row_eject_a_replica_but_never_more_than_half(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A, B])
    for expected in (["rep_a"] * FAILURES + ["rep_b"], ["rep_b"]):
        for replica_id in expected:
            async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
                assert slot.replica_id == replica_id
                endpoints.failed("dep", slot, dead=False)
    async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
        assert slot.replica_id == "rep_b"
    assert endpoints.wanted.is_set()


async def test_a_dead_replica_is_left_out_even_alone_and_its_successor_waited_for(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
        endpoints.failed("dep", slot, dead=True)
    await requests.send(asked())
    assert endpoints.demand("dep").held == 1
    endpoints.publish("dep", [Endpoint("rep_a", "http://elsewhere", "t", 4)])
    await turns()
    assert requests.on == ["rep_a"]


async def test_retries_are_as_many_as_one_replica_takes_and_go_to_another(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A, B])
    await requests.send(*(asked() for _ in range(12)))
    again = asked(exclude=frozenset({"rep_a"}), returning=True)
    for _ in range(slots(A.capacity)):
        assert endpoints.may_retry("dep")
        await requests.send(again)
    assert not endpoints.may_retry("dep")
    assert endpoints.demand("dep").held == 2 + slots(A.capacity)
    await requests.end(10)
    later = list(zip(requests.admitted, requests.on, strict=True))[10:]
    assert [replica for ask, replica in later if ask is again] == ["rep_b"] * 5
    assert [replica for ask, replica in later if ask is not again] == ["rep_a"] * 2


async def test_a_full_replica_is_given_nothing_until_it_has_room(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [A])
    await requests.send(asked())
    async with endpoints.acquire("dep", CLOCK.monotonic() + 60, asked()) as slot:
        endpoints.full("dep", slot, retry_after_s=60)
    await requests.send(asked())
    assert endpoints.demand("dep").held == 1
    await requests.end()
    assert len(requests.on) == 2, "one of its requests ended"


async def test_demand_counts_tokens_as_they_come_and_as_they_were(
    endpoints: Endpoints, requests: Requests
) -> None:
    endpoints.publish("dep", [Endpoint("rep_a", "http://a", "t", capacity=1)])
    await requests.send(*(asked(prompt_tokens=100, most_tokens=20) for _ in range(3)))
    demand = endpoints.demand("dep")
    assert (demand.held_tokens, demand.in_flight_tokens) == (120, 240)
    assert (demand.arrivals, demand.arrived_tokens, demand.finished_tokens) == (3, 360, 0)
    endpoints.publish("another", [A])
    async with endpoints.acquire("another", CLOCK.monotonic() + 60, asked()) as slot:
        slot.used(90, 7)
    assert endpoints.demand("another").finished_tokens == 97
