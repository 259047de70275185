from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.errors import DeadlinePassed, Unavailable
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.replica import Ask

A = Endpoint("rep_a", "http://a", "token", capacity=2)
B = Endpoint("rep_b", "http://b", "token", capacity=2)
CLOCK = SystemClock()
ANY = Ask()


def soon(seconds: float = 60.0) -> float:
    return CLOCK.monotonic() + seconds


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints(CLOCK, hold_queue=3)


async def use(endpoints: Endpoints, until: asyncio.Event, ask: Ask = ANY) -> str:
    async with endpoints.acquire("dep", soon(), ask) as slot:
        await until.wait()
        return slot.replica_id


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_request_takes_the_replica_with_the_least_work(endpoints: Endpoints) -> None:
    endpoints.publish("dep", [A, B])
    async with AsyncExitStack() as stack:
        taken = [
            (await stack.enter_async_context(endpoints.acquire("dep", soon()))).replica_id
            for _ in range(4)
        ]
        assert sorted(taken) == ["rep_a", "rep_a", "rep_b", "rep_b"]
        assert endpoints.demand("dep").in_flight == 4
        assert endpoints.in_flight_on("dep", "rep_a") == 2
    assert endpoints.demand("dep").in_flight == 0


async def test_a_replica_that_failed_the_request_is_chosen_only_when_there_is_no_other(
    endpoints: Endpoints,
) -> None:
    endpoints.publish("dep", [A, B])
    again = Ask(exclude=frozenset({"rep_a"}), returning=True)
    async with endpoints.acquire("dep", soon(), again) as slot:
        assert slot.endpoint is B
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", soon(), again) as slot:
        assert slot.endpoint is A
    assert endpoints.demand("dep").arrivals == 0, "it arrived before"


async def test_a_request_without_a_replica_is_held_and_rings_for_one(endpoints: Endpoints) -> None:
    done = asyncio.Event()
    done.set()
    waiting = asyncio.create_task(use(endpoints, done))
    await turns()
    assert endpoints.wanted.is_set()
    assert (endpoints.demand("dep").held, endpoints.demand("dep").idle_s) == (1, 0.0)
    endpoints.publish("dep", [A])
    assert await waiting == "rep_a"
    assert (endpoints.demand("dep").held, endpoints.demand("dep").in_flight) == (0, 0)


async def test_publishing_nothing_wakes_nobody(endpoints: Endpoints) -> None:
    done = asyncio.Event()
    waiting = asyncio.create_task(use(endpoints, done))
    await turns()
    endpoints.publish("dep", [])
    await turns()
    assert endpoints.demand("dep").held == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_deadline_that_passes_while_held_is_said(endpoints: Endpoints) -> None:
    for deadline in (soon(0.02), soon(-1)):
        with pytest.raises(DeadlinePassed, match="no replica had room"):
            async with endpoints.acquire("dep", deadline):
                pass
    assert endpoints.demand("dep").held == 0


async def test_a_full_queue_refuses_with_the_measured_cold_start(endpoints: Endpoints) -> None:
    endpoints.publish("dep", [], cold_start_s=7.5)
    done = asyncio.Event()
    held = [asyncio.create_task(use(endpoints, done)) for _ in range(3)]
    await turns()
    with pytest.raises(Unavailable) as caught:
        async with endpoints.acquire("dep", soon()):
            pass
    assert (caught.value.code, caught.value.retry_after_s) == ("hold_queue_full", 7.5)
    assert endpoints.demand("dep").held == 3
    assert endpoints.demand("other").held == 0
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_those_held_are_told_when_no_replica_will_come(endpoints: Endpoints) -> None:
    done = asyncio.Event()
    waiting = asyncio.create_task(use(endpoints, done))
    await turns()
    endpoints.publish("dep", [], hopeless=Unavailable("the model has no files", code="failed"))
    with pytest.raises(Unavailable, match="no files"):
        await waiting
    with pytest.raises(Unavailable, match="no files"):
        async with endpoints.acquire("dep", soon()):
            pass
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", soon()) as slot:
        assert slot.endpoint is A


async def test_a_reason_told_to_many_does_not_collect_their_frames(endpoints: Endpoints) -> None:
    reason = Unavailable("never", code="failed", retry_after_s=2)
    endpoints.publish("dep", [], hopeless=reason)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            async with endpoints.acquire("dep", soon()):
                pass
        assert (caught.value.code, caught.value.retry_after_s) == ("failed", 2)
    assert reason.__traceback__ is None


async def test_those_held_are_told_when_the_deployment_is_deleted(endpoints: Endpoints) -> None:
    done = asyncio.Event()
    waiting = asyncio.create_task(use(endpoints, done))
    await turns()
    endpoints.forget("dep")
    with pytest.raises(Unavailable, match="deleted"):
        await waiting


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancellation_at_any_moment_leaks_no_counter(
    endpoints: Endpoints, steps: int
) -> None:
    never = asyncio.Event()
    waiting = asyncio.create_task(use(endpoints, never))
    for step in range(steps):
        await asyncio.sleep(0)
        if step == 3:
            endpoints.publish("dep", [A])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    demand = endpoints.demand("dep")
    assert (demand.held, demand.in_flight) == (0, 0)


async def test_a_request_that_fails_gives_its_counter_back(endpoints: Endpoints) -> None:
    endpoints.publish("dep", [A])
    with pytest.raises(RuntimeError):
        async with endpoints.acquire("dep", soon()):
            raise RuntimeError
    assert endpoints.demand("dep").in_flight == 0


async def test_a_replica_that_is_withdrawn_finishes_what_it_has(endpoints: Endpoints) -> None:
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", soon()):
        endpoints.publish("dep", [])
        assert endpoints.ready("dep") == []
        assert endpoints.in_flight_on("dep", "rep_a") == 1
    assert endpoints.in_flight_on("dep", "rep_a") == 0


class HeldClock(SystemClock):
    """Monotonic time stands still but for what is added to it."""

    elapsed_s = 1000.0

    def monotonic(self) -> float:
        return self.elapsed_s


async def test_idle_time_begins_when_the_last_request_ends() -> None:
    clock = HeldClock()
    endpoints = Endpoints(clock, hold_queue=3)
    assert endpoints.demand("dep").idle_s is None
    endpoints.publish("dep", [A])
    async with endpoints.acquire("dep", clock.monotonic() + 60):
        clock.elapsed_s += 7
        assert endpoints.demand("dep").idle_s == 0.0
    clock.elapsed_s += 5
    assert endpoints.demand("dep").idle_s == 5.0
    endpoints.touch("dep")
    clock.elapsed_s += 1
    assert endpoints.demand("dep").idle_s == 1.0


async def test_those_held_are_told_when_the_platform_stops_and_nobody_is_held_after(
    endpoints: Endpoints,
) -> None:
    holding = asyncio.create_task(use(endpoints, asyncio.Event()))
    await turns()
    endpoints.close()
    with pytest.raises(Unavailable, match="stopping") as told:
        await holding
    assert told.value.retry_after_s
    with pytest.raises(Unavailable, match="stopping"):
        await use(endpoints, asyncio.Event())
