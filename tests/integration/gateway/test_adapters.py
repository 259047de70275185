from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidegate.protocol.resources import ComparisonView
from tidegate_controlplane.gateway.replica import Endpoint
from tidegate_controlplane.gateway.trials import Trial

CHAT = "/v1/chat/completions"
POET = {"poet": "/adapters/poet"}


def refusal(code: str) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "x", "code": code}}


async def poet(platform: Any) -> Any:
    """A ready replica of `smol`, which has the adapter `poet`."""
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    platform.deploy(adapters=POET)
    return replica


async def test_a_replica_is_told_of_an_adapter_once_before_it_is_asked_for_it(
    platform: Any,
) -> None:
    replica = await poet(platform)
    async with platform.client() as client:
        for model in ("smol:poet", "smol:poet", "smol"):
            assert (await client.post(CHAT, json=platform.chat(model=model))).status_code == 200
    assert replica.paths == ["/adapters", CHAT, CHAT, CHAT]
    assert replica.asked[0] == {"name": "poet", "source": "/adapters/poet"}
    assert [asked["model"] for asked in replica.asked[1:]] == ["smol:poet", "smol:poet", "smol"]


async def test_another_source_and_another_process_are_told_again(platform: Any) -> None:
    replica = await poet(platform)
    async with platform.client() as client:
        await client.post(CHAT, json=platform.chat(model="smol:poet"))
        platform.deploy(adapters={"poet": "s3://bucket/poet"})
        await client.post(CHAT, json=platform.chat(model="smol:poet"))
        successor = await platform.replica(platform.Script.json(platform.COMPLETION))
        platform.publish(successor)
        await client.post(CHAT, json=platform.chat(model="smol:poet"))
    assert replica.asked[2] == {"name": "poet", "source": "s3://bucket/poet"}
    assert successor.paths == ["/adapters", CHAT]


async def test_what_a_replica_says_of_an_adapter_it_cannot_take_is_the_answer(
    platform: Any,
) -> None:
    replica = await poet(platform)
    async with platform.client() as client:
        for status, code in ((400, "adapter_refused"), (503, "adapter_unavailable")):
            replica.adapters = platform.Script.json(refusal(code), status)
            for stream in (False, True):
                asked = platform.chat(model="smol:poet", stream=stream)
                answer = await client.post(CHAT, json=asked)
                assert (answer.status_code, answer.json()) == (status, refusal(code))
        replica.adapters = platform.Script.json({})
        assert (await client.post(CHAT, json=platform.chat(model="smol:poet"))).status_code == 200
    assert replica.paths == ["/adapters"] * 5 + [CHAT]


async def test_a_replica_that_dies_while_it_loads_an_adapter_is_replaced_by_another(
    platform: Any,
) -> None:
    dying = await poet(platform)
    dying.adapters = platform.Script([platform.Dies()])
    other = await platform.replica(platform.Script.json(platform.COMPLETION), "rep_b")
    async with platform.client() as client:
        platform.publish(dying)
        platform.publish(dying, other)
        answers = [await client.post(CHAT, json=platform.chat(model="smol:poet")) for _ in "ab"]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert other.paths == ["/adapters", CHAT, CHAT]


async def test_an_adapter_that_is_not_declared_is_not_found_and_those_that_are_are_named(
    platform: Any,
) -> None:
    replica = await poet(platform)
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat(model="smol:painter"))
        other = await client.post(CHAT, json=platform.chat(model="none:poet"))
    assert answer.status_code == other.status_code == 404
    assert "'smol' is served as: smol, smol:poet; add an adapter" in answer.text
    assert "deployments here: smol" in other.text
    assert replica.paths == []


async def test_adapters_are_listed_after_the_model_that_they_change(platform: Any) -> None:
    platform.deploy(adapters=POET)
    async with platform.client() as client:
        listed = (await client.get("/v1/models")).json()["data"]
        one = (await client.get("/v1/models/smol:poet")).json()
    assert [card["id"] for card in listed] == ["smol", "smol:poet"]
    assert listed[1] == one
    assert (one["parent"], one["root"]) == ("smol", "/adapters/poet")


class Shadow:
    """A replica of a revision that gets a copy of every request."""

    def __init__(self, platform: Any, replica: Any) -> None:
        self.platform, self.replica = platform, replica
        self.begin()

    @classmethod
    async def of(cls, platform: Any) -> Shadow:
        await poet(platform)
        answer = platform.Script.json(platform.COMPLETION)
        return cls(platform, await platform.replica(answer, "rep_new"))

    def begin(self) -> None:
        place = self.replica
        target = Endpoint(place.id, place.url, place.token, 4, "rev_new")
        trial = Trial("rol/0", "", "rev_new", copied=1.0, targets=[target])
        self.platform.trials.begin("dep_smol", trial)

    def view(self) -> ComparisonView:
        found: ComparisonView = self.platform.trials.view("dep_smol", "rol/0")
        return found

    async def ask(self, copies: int) -> None:
        """One request for the adapter, and what comes of its copy: so many requests in all."""
        async with self.platform.client() as client, asyncio.timeout(10):
            answer = await client.post(CHAT, json=self.platform.chat(model="smol:poet"))
            assert answer.status_code == 200
            while len(self.replica.paths) < copies or self.replica.running:
                await asyncio.sleep(0.005)


async def test_a_shadow_is_told_of_an_adapter_once_before_its_first_copy_for_it(
    platform: Any,
) -> None:
    shadow = await Shadow.of(platform)
    await shadow.ask(copies=2)
    await shadow.ask(copies=3)
    assert shadow.replica.paths == ["/adapters", CHAT, CHAT]
    assert shadow.replica.asked[0] == {"name": "poet", "source": "/adapters/poet"}
    assert [asked["model"] for asked in shadow.replica.asked[1:]] == ["smol:poet"] * 2
    platform.trials.end("dep_smol")
    shadow.begin()
    await shadow.ask(copies=5)
    assert shadow.replica.paths[3:] == ["/adapters", CHAT]
    async with asyncio.timeout(10):
        while (shadow.view().new.answered, shadow.view().new.failed) != (1, 0):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("status", "code", "failed"),
    [
        (400, "adapter_refused", 1),
        (503, "adapter_unavailable", 0),
        (503, "adapters_busy", 0),
    ],
)
async def test_an_adapter_that_a_shadow_refuses_speaks_against_it_and_one_out_of_reach_does_not(
    platform: Any, status: int, code: str, failed: int
) -> None:
    shadow = await Shadow.of(platform)
    shadow.replica.adapters = platform.Script.json(refusal(code), status)
    await shadow.ask(copies=1)
    shadow.replica.adapters = platform.Script.json({})
    await shadow.ask(copies=3)
    assert shadow.replica.paths == ["/adapters", "/adapters", CHAT]
    async with asyncio.timeout(10):
        while not shadow.view().new.answered:
            await asyncio.sleep(0.005)
    assert (shadow.view().new.answered, shadow.view().new.failed) == (1, failed)
