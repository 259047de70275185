"""Bursts, replicas that hang or are full, clients that do not read, cancellations everywhere."""

from __future__ import annotations

import asyncio
import json
import socket
import types
from collections.abc import Coroutine, Generator
from typing import Any

import aiohttp
import pytest

from tidegate_controlplane.domain.ejection import FAILURES
from tidegate_controlplane.gateway import probe
from tidegate_controlplane.gateway.replica import Ask

CHAT = "/v1/chat/completions"


async def until(condition: Any, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_500_requests_at_once_against_zero_replicas_are_all_answered(platform: Any) -> None:
    platform.deploy()
    platform.services.endpoints._hold_queue = 500
    replica = await platform.replica(platform.Script.json(platform.COMPLETION))
    headers = {"authorization": f"Bearer {platform.key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(platform.url, headers=headers, connector=connector) as client:

        async def ask() -> int:
            async with client.post(CHAT, json=platform.chat()) as answer:
                await answer.read()
                return answer.status

        burst = [asyncio.create_task(ask()) for _ in range(500)]
        await until(lambda: platform.demand().held == 500)
        platform.publish(replica)
        assert set(await asyncio.gather(*burst)) == {200}
    assert replica.most_running <= 5, "a replica of capacity 4 is sent one more"


@pytest.fixture
def hasty(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that hang are found out."""
    monkeypatch.setattr(probe, "PATIENCE", aiohttp.ClientTimeout(total=0.5))


@pytest.mark.usefixtures("hasty")
async def test_requests_on_a_replica_that_hangs_are_answered_by_another(platform: Any) -> None:
    platform.deploy()
    hung = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_a")
    good = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    hung.is_hung = True
    platform.publish(hung, good)
    async with platform.client() as client:
        asking = [client.post(CHAT, json=platform.chat()) for _ in range(6)]
        answers = await asyncio.gather(*asking)
        assert [answer.status_code for answer in answers] == [200] * 6
        after = await client.post(CHAT, json=platform.chat())
    assert after.status_code == 200
    assert len(good.asked) == 7
    assert platform.services.endpoints.wanted.is_set()


@pytest.mark.usefixtures("hasty")
async def test_who_waits_on_a_replica_that_hangs_and_was_withdrawn_is_moved_too(
    platform: Any,
) -> None:
    hung = await platform.ready(platform.Script.json(platform.COMPLETION))
    good = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    hung.is_hung = True
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: platform.demand().in_flight == 1)
        platform.publish(good)
        assert (await asking).status_code == 200


async def test_who_is_held_when_a_replica_dies_under_streams_does_not_follow_them(
    platform: Any,
) -> None:
    platform.deploy()
    platform.services.endpoints._hold_queue = 20
    death, rest = asyncio.Event(), asyncio.Event()
    begun = platform.Script.stream(platform.chunk("Par"), death, platform.Dies())
    dying = await platform.replica(begun, "rep_a")
    later = [rest, json.dumps(platform.COMPLETION).encode()]
    other = await platform.replica(platform.Script(later), "rep_b")
    async with platform.client() as client:

        def ask(number: int, **fields: Any) -> list[asyncio.Task[Any]]:
            asked = platform.chat(**fields)
            return [asyncio.create_task(client.post(CHAT, json=asked)) for _ in range(number)]

        platform.publish(dying)
        streams = ask(3, stream=True)
        await until(lambda: dying.running == 3)
        dying.script = platform.Script([death, platform.Dies()])
        unanswered = ask(2)
        await until(lambda: dying.running == 5)
        platform.publish(dying, other)
        elsewhere = ask(5)
        await until(lambda: other.running == 5)
        held = ask(10)
        await until(lambda: platform.demand().held == 10)
        dying.script = platform.Script([platform.Dies()])
        death.set()
        assert all("replica_failed" in each.text for each in await asyncio.gather(*streams))
        rest.set()
        answers = await asyncio.gather(*unanswered, *elsewhere, *held)
    assert [answer.status_code for answer in answers] == [200] * 17
    followed = len(dying.asked) - 5
    assert followed < FAILURES, "the third failure leaves a replica out, and each is one"


async def test_a_replica_that_misses_one_probe_and_answers_the_next_is_left_alone(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "EVERY_S", 0.01)
    monkeypatch.setattr(probe, "PATIENCE", aiohttp.ClientTimeout(total=1.0))
    answered = asyncio.Event()
    script = platform.Script([answered, json.dumps(platform.COMPLETION).encode()])
    platform.deploy()
    busy = await platform.replica(script, "rep_a")
    other = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    platform.publish(busy, other)
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: busy.running == 1)
        for _ in range(2):
            busy.is_hung, seen = True, busy.probes
            await until(lambda seen=seen: busy.probes > seen)
            busy.is_hung, seen = False, busy.probes
            await until(lambda seen=seen: busy.probes > seen)
        answered.set()
        assert (await asking).status_code == 200
    assert not other.asked


async def test_a_replica_that_takes_long_but_answers_its_probe_is_left_alone(
    platform: Any,
) -> None:
    platform.deploy()
    slow = await platform.replica(platform.Script([1.3, json.dumps({}).encode()]), "rep_a")
    other = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    platform.publish(slow, other)
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    assert answer.json() == {}
    assert not other.asked


@pytest.mark.parametrize(("status", "code"), [(503, "engine_overloaded"), (429, "no")])
async def test_a_request_that_a_full_replica_refused_goes_back_to_hold(
    platform: Any, status: int, code: str
) -> None:
    error = {"error": {"message": "full", "type": "x", "code": code}}
    replica = await platform.ready(platform.Script.json(error, status))
    async with platform.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=platform.chat()))
        await until(lambda: platform.demand().held == 1)
        replica.script = platform.Script.json(platform.COMPLETION)
        answer = await asking
    assert answer.status_code == 200
    assert len(replica.asked) == 2


async def test_a_client_that_does_not_read_stops_the_replica_and_is_left(platform: Any) -> None:
    large = platform.chunk("x" * 65536)
    replica = await platform.ready(platform.Script.stream(*[large] * 1500))
    body = json.dumps(platform.chat(stream=True)).encode()
    address = platform.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)  # noqa: FBT003
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address[0], int(address[1])))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {platform.key}\r\n"
        await loop.sock_sendall(
            client, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        )
        await until(lambda: replica.running == 1)
        await until(lambda: replica.running == 0)
    assert replica.sent_bytes < 32 * 1024 * 1024, "of 98 MB, what lies in the kernel's buffers"
    await until(lambda: platform.demand().in_flight == 0)


@types.coroutine
def cancelled_at(step: int, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Drive `work`, and cancel it where it suspends for the `step`-th time; whether it was."""
    suspended, send, sent = 0, work.send, None
    try:
        while True:
            future = send(sent)
            suspended += 1
            if suspended == step:
                asyncio.current_task().cancel()
            try:
                send, sent = work.send, (yield future)
            except BaseException as error:  # noqa: BLE001 - it belongs to the work
                send, sent = work.throw, error
    except StopIteration:
        return suspended >= step
    except asyncio.CancelledError:
        return True


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancellation_at_every_await_leaves_no_slot_no_hold_and_no_connection(
    platform: Any, held: bool, stream: bool
) -> None:
    platform.deploy()
    platform.deploy("other")
    parts = [0.001, platform.chunk("Par"), 0.001, platform.USAGE, platform.DONE]
    replica = await platform.replica(platform.Script.stream(*parts))
    forwarder, served = (
        platform.services.forwarder,
        platform.services.catalog.get("prj_default", "smol"),
    )
    body = json.dumps(platform.chat(stream=stream)).encode()

    async def work() -> None:
        terms: Any = {"deadline": platform.services.clock.monotonic() + 60, "request_id": "r"}
        if not stream:
            await forwarder.call(served, CHAT, body, **terms)
            return
        async with forwarder.stream(served, CHAT, body, ask=Ask(), **terms) as upstream:
            async for _ in upstream.chunks:
                pass

    was_cancelled, step = True, 0
    while was_cancelled:
        step += 1
        platform.publish(*[] if held else [replica])
        if held:
            asyncio.get_running_loop().call_later(0.005, platform.publish, replica)
        was_cancelled = await asyncio.create_task(_driven(step, work()))
        if held:
            await asyncio.sleep(0.006)
        await until(lambda: not replica.running)
        demand = platform.demand()
        assert (demand.held, demand.in_flight, demand.held_tokens) == (0, 0, 0), step
        assert demand.in_flight_tokens == 0, step
    assert step > 3


async def _driven(step: int, work: Coroutine[Any, Any, Any]) -> bool:
    return await cancelled_at(step, work)
