"""Bodies and answers that are never held: into the object store, asked in pieces, and out again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tidegate.spec import Task
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.errors import BadRequest, NotFound, TooLarge, UnprocessableKey
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.settings import LimitSettings
from tidegate_controlplane.work.invocations import Terms
from tidegate_controlplane.work.items import PIECE_ITEMS
from tidegate_controlplane.work.payloads import Payloads


class Embedder:
    """A replica that embeds each text as its length."""

    def __init__(self, endpoints: Any) -> None:
        self.endpoints = endpoints
        self.asked: list[Any] = []
        self.answers: list[Answer | None] = []
        """Of the next requests; None for the usual one."""
        self.gate: asyncio.Event | None = None

    async def follow(self, listener, served, path, body, *, deadline, **_) -> Answer:
        async with self.endpoints.acquire(served.deployment_id, deadline):
            listener.asked("rep_1")
            if self.gate is not None:
                await self.gate.wait()
            document = json.loads(body)
            self.asked.append(document)
            if self.answers and (scripted := self.answers.pop(0)):
                return scripted
            texts = document["input"]
            data = [{"index": i, "embedding": [float(len(t))]} for i, t in enumerate(texts)]
            usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
            answer = {"object": "list", "data": data, "model": "e", "usage": usage}
            return Answer(200, json.dumps(answer).encode())


@pytest.fixture
async def embedder(house):
    await house.deploy("e", task=Task.EMBED)
    return Embedder(house.endpoints)


def body_of(texts, **fields):
    return json.dumps({"input": texts, "model": "e", **fields}).encode()


async def in_pieces(data: bytes, size: int = 7000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def files(house):
    return [path for path in house.settings.objects_dir.rglob("*") if path.is_file()]


async def submitted(work, kit, data, **terms):
    accepted, _ = await work.invocations.submit(kit.principal, in_pieces(data), Terms(**terms))
    return accepted


async def document_of(work, kit, invocation_id):
    result = await work.invocations.open_result(kit.principal, invocation_id)
    content = b"".join([piece async for piece in result.pieces])
    assert len(content) == result.total
    return json.loads(content)


async def test_a_long_array_is_asked_in_pieces_and_answered_as_one(house, kit, embedder):
    texts = ["x" * (number % 50 + 1) for number in range(PIECE_ITEMS * 3 + 5)]
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(texts, dimensions=7))
        assert accepted.items == len(texts)
        done = await house.finished(work, accepted.id)
        document = await document_of(work, kit, accepted.id)
    assert done.status == "succeeded"
    assert [one["index"] for one in document["data"]] == list(range(len(texts)))
    assert [one["embedding"] for one in document["data"]] == [[len(text)] for text in texts]
    assert document["usage"] == {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    assert [len(asked["input"]) for asked in embedder.asked] == [PIECE_ITEMS] * 3 + [5]
    assert all(asked["dimensions"] == 7 for asked in embedder.asked)
    assert house.book.records == [("prj_1", "e", "key_1", len(texts), 0)]
    assert house.endpoints.demand("dep_e").in_flight == 0


async def test_a_small_body_of_many_items_is_taken_too(house, kit, embedder):
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["a"] * 150))
        await house.finished(work, accepted.id)
        document = await document_of(work, kit, accepted.id)
    assert len(document["data"]) == 150
    assert accepted.items == 150
    assert not await house.objects.exists(f"prj_1/requests/{accepted.id}")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (body_of(["x"] * 500, unknown=1), BadRequest),
        (body_of(["x"] * 500, dimensions=0), BadRequest),
        (body_of(["x"] * 500 + [""]), BadRequest),
        (body_of(["x"] * 500).replace(b'"e"', b'"absent"'), NotFound),
        (body_of(["x"] * 500)[:-1], BadRequest),
        (body_of(["x" * 9_000_000]), TooLarge),
        (json.dumps({"model": "e", "prompt": ["x" * 3000]}).encode(), BadRequest),
    ],
    ids=["unknown", "field", "item", "model", "cut", "item too large", "task"],
)
async def test_what_is_refused_leaves_nothing_behind(house, kit, embedder, data, error):
    work = house.work(forwarder=embedder)
    with pytest.raises(error):
        await submitted(work, kit, data)
    assert files(house) == []
    assert (await work.invocations.list(kit.principal, after=None, limit=5)).data == []


async def test_a_caller_who_leaves_in_the_middle_leaves_nothing_behind(house, kit, embedder):
    async def broken() -> AsyncIterator[bytes]:
        yield body_of(["x"] * 5000)[:10_000]
        raise BadRequest("the client closed the connection")

    work = house.work(forwarder=embedder)
    with pytest.raises(BadRequest, match="closed"):
        await work.invocations.submit(kit.principal, broken(), Terms())
    assert files(house) == []


async def test_a_key_holds_for_large_bodies_and_keeps_one_object(house, kit, embedder):
    work = house.work(forwarder=embedder)
    data = body_of(["x"] * 2000)
    tries = [submitted(work, kit, data, idempotency_key="k") for _ in range(4)]
    assert len({one.id for one in await asyncio.gather(*tries)}) == 1
    assert (await submitted(work, kit, data, idempotency_key="k")).id
    with pytest.raises(UnprocessableKey):
        await submitted(work, kit, body_of(["y"] * 2000), idempotency_key="k")
    assert len(files(house)) == 1


async def test_a_piece_that_is_refused_fails_the_whole_and_leaves_no_part_of_an_answer(
    house, kit, embedder
):
    embedder.answers = [None, kit.refused(400, "context_length_exceeded")]
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["x"] * 100))
        done = await house.finished(work, accepted.id)
    assert (done.status, done.error.code) == ("failed", "context_length_exceeded")
    assert files(house) == []


async def test_a_piece_that_fails_is_tried_again_with_the_whole(house, kit, embedder):
    embedder.answers = [None, kit.refused(500), None, Answer(200, b"<html>")]
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["x"] * 100))
        done = await house.finished(work, accepted.id)
        document = await document_of(work, kit, accepted.id)
    assert (done.status, done.attempt, len(document["data"])) == ("succeeded", 3, 100)
    causes = [each.error.code if each.error else None for each in done.attempts]
    assert causes == ["no", "unreadable_answer", None]


async def test_an_answer_larger_than_is_kept_fails_at_once(house, kit, embedder):
    limits = house.settings.limits.model_copy(update={"invocation_result_bytes": 500})
    settings = house.settings.model_copy(update={"limits": limits})
    async with house.working(forwarder=embedder, settings=settings) as work:
        accepted = await submitted(work, kit, body_of(["x"] * 100))
        done = await house.finished(work, accepted.id)
    assert (done.status, done.error.code, done.attempt) == ("failed", "result_too_large", 1)
    assert files(house) == []


async def test_cancelling_between_two_pieces_hangs_up_and_leaves_no_part_of_an_answer(
    house, kit, embedder
):
    embedder.gate = asyncio.Event()
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["x"] * 2000))
        embedder.gate.set()
        await kit.until(lambda: asyncio.sleep(0, embedder.asked), bool)
        embedder.gate.clear()
        done = await work.invocations.cancel(kit.principal, accepted.id)
        assert done.status == "canceled"
    assert [path.parent.name for path in files(house)] == ["requests"]
    assert house.endpoints.demand("dep_e").in_flight == 0


async def test_a_later_piece_waits_for_a_replica_that_others_keep_busy(house, kit, embedder):
    house.replicas_of(house.catalog.by_id("dep_e"), 1)
    embedder.gate = asyncio.Event()

    async def keep_busy() -> None:
        deadline = house.clock.monotonic() + 60
        async with house.endpoints.acquire("dep_e", deadline):
            await asyncio.sleep(0.1)

    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["x"] * PIECE_ITEMS * 3))
        await kit.until(lambda: asyncio.sleep(0, house.endpoints.demand("dep_e").in_flight), bool)
        others = [asyncio.create_task(keep_busy()) for _ in range(4)]
        await asyncio.sleep(0.01)
        embedder.gate.set()
        done = await house.finished(work, accepted.id)
        await asyncio.gather(*others)
    assert (done.status, len(embedder.asked)) == ("succeeded", 3)


async def test_a_result_is_read_from_where_it_broke_off(house, kit, embedder):
    async with house.working(forwarder=embedder) as work:
        accepted = await submitted(work, kit, body_of(["x"] * 300))
        await house.finished(work, accepted.id)
        whole = await work.invocations.open_result(kit.principal, accepted.id)
        content = b"".join([piece async for piece in whole.pieces])
        rest = await work.invocations.open_result(kit.principal, accepted.id, 1000)
        assert b"".join([piece async for piece in rest.pieces]) == content[1000:]
    assert (rest.total, len(content) > 5000) == (len(content), True)


def test_a_gibibyte_is_taken_unless_settings_say_otherwise():
    assert LimitSettings().invocation_body_bytes == 1 << 30


async def test_a_cancellation_that_comes_with_the_last_write_leaves_no_object(house):
    class Late:
        """Its last write is done when the cancellation is heard."""

        async def put(self, *args):
            await house.objects.put(*args)
            raise asyncio.CancelledError

        delete = staticmethod(house.objects.delete)

    with pytest.raises(asyncio.CancelledError):
        await Payloads(Late(), Envelopes(), 10).keep_stream("some/key", [b"x"], 100)
    assert not await house.objects.exists("some/key")
