from __future__ import annotations

from typing import Any

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
