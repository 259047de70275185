from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.web.relay import HEARTBEAT, Head, Patience, Producer, Relay

EVENTS = Head(200, "text/event-stream")


class Client:
    """One side of an exchange: what was sent, and when to leave."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.leaves = asyncio.Event()

    async def receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def ask(
        self, producer: Producer, patience: Patience | None = None, stall_s: float = 5.0
    ) -> None:
        scope: Any = {"type": "http"}
        relay = Relay(producer, stall_s=stall_s, patience=patience)
        await relay(scope, self.receive, self.send)


async def test_an_answer_is_sent_as_it_is_produced_and_ended() -> None:
    async def produce() -> Producer:
        yield Head(201, "text/plain", {"x-a": "b"})
        yield b"one"
        yield b"two"

    client = Client()
    await client.ask(produce())
    assert client.sent[0]["status"] == 201
    assert (b"content-type", b"text/plain") in client.sent[0]["headers"]
    assert [message["body"] for message in client.sent[1:]] == [b"one", b"two", b""]
    assert client.sent[-1]["more_body"] is False


async def test_an_answer_without_a_body_is_ended_too() -> None:
    async def produce() -> Producer:
        yield Head(200, "text/plain")

    client = Client()
    await client.ask(produce())
    assert client.sent[-1]["more_body"] is False


async def test_what_is_raised_before_the_head_is_raised_to_the_caller_as_it_is() -> None:
    async def produce() -> Producer:
        raise Unavailable("not now")
        yield Head(200, "text/plain")

    client = Client()
    with pytest.raises(Unavailable):
        await client.ask(produce())
    assert client.sent == []


async def test_comments_are_sent_until_the_first_byte_and_not_after() -> None:
    client, three_comments = Client(), asyncio.Event()

    async def produce() -> Producer:
        await three_comments.wait()
        yield EVENTS
        yield b"first"
        await asyncio.sleep(0.05)
        yield b"second"

    async def counted(message: Any) -> None:
        client.sent.append(message)
        if client.body.count(HEARTBEAT) == 3:
            three_comments.set()

    client.send = counted  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await client.ask(produce(), Patience(EVENTS, 0.01))
    assert client.body.count(HEARTBEAT) >= 3
    assert client.body.endswith(HEARTBEAT + b"firstsecond")
    assert [m["type"] for m in client.sent].count("http.response.start") == 1


async def test_an_answer_that_comes_within_patience_keeps_its_own_status() -> None:
    patience = Patience(EVENTS, 5.0)

    async def produce() -> Producer:
        await asyncio.sleep(0.01)
        yield Head(400, "application/json")
        yield b"{}"

    client = Client()
    await client.ask(produce(), patience)
    assert client.sent[0]["status"] == 400
    assert client.body == b"{}"
    assert not patience.is_spent


async def test_a_client_that_takes_nothing_is_left_and_the_producer_stopped() -> None:
    never, closed = asyncio.Event(), []

    async def produce() -> Producer:
        try:
            yield EVENTS
            while True:
                yield b"more"
        finally:
            closed.append(len(client.sent))

    client = Client()

    async def stalls(message: Any) -> None:
        client.sent.append(message)
        if len(client.sent) == 4:
            await never.wait()

    client.send = stalls  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await client.ask(produce(), stall_s=0.02)
    assert closed == [4], "nothing more is taken from the producer while a client is not reading"


@pytest.mark.parametrize("where", ["before the head", "before a byte", "while sending"])
async def test_a_client_that_leaves_stops_the_producer_wherever_it_is(where: str) -> None:
    never, there, closed = asyncio.Event(), asyncio.Event(), []

    async def produce() -> Producer:
        try:
            if where == "before the head":
                there.set()
                await never.wait()
            yield EVENTS
            if where == "before a byte":
                there.set()
                await never.wait()
            yield b"a byte"
        finally:
            closed.append(asyncio.current_task())

    client = Client()

    async def blocked(message: Any) -> None:
        if message.get("body") == b"a byte":
            there.set()
            await never.wait()

    client.send = blocked  # type: ignore[method-assign]
    asking = asyncio.create_task(client.ask(produce()))
    await there.wait()
    assert not closed
    client.leaves.set()
    async with asyncio.timeout(60):
        await asking
    assert len(closed) == 1


async def test_a_server_that_stops_stops_the_producer() -> None:
    never, there, closed = asyncio.Event(), asyncio.Event(), []

    async def produce() -> Producer:
        try:
            there.set()
            await never.wait()
            yield Head(200, "text/plain")
        finally:
            closed.append(True)

    asking = asyncio.create_task(Client().ask(produce()))
    await there.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    assert closed == [True]
