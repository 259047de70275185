"""A request whose caller is answered whole, while somebody reads along."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tidegate.protocol.replica import Priority
from tidegate_controlplane.errors import UpstreamFailed

CHAT = "/v1/chat/completions"


@dataclass
class Ear:
    wants_text: bool = True
    replicas: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def asked(self, replica_id: str) -> None:
        self.replicas.append(replica_id)

    def heard(self, chunk: dict[str, Any]) -> None:
        self.texts += [choice["delta"].get("content") or "" for choice in chunk["choices"]]


@pytest.fixture
def follow(platform):
    async def make(listener: Ear) -> Any:
        return await platform.services.forwarder.follow(
            listener,
            platform.services.catalog.get("prj_default", "smol"),
            CHAT,
            json.dumps(platform.chat()).encode(),
            deadline=asyncio.get_running_loop().time() + 5,
            request_id="r",
            run_s=5,
            priority=Priority.ASYNC,
        )

    return make


async def test_the_listener_hears_each_piece_and_the_answer_is_whole(platform, follow):
    parts = [platform.chunk("Pa"), platform.chunk("ris"), platform.USAGE, platform.DONE]
    replica = await platform.ready(platform.Script.stream(*parts))
    ear = Ear()
    answer = await follow(ear)
    document = json.loads(answer.body)
    assert (answer.status, answer.used) == (200, (7, 2))
    assert document["object"] == "chat.completion"
    assert document["choices"][0]["message"]["content"] == "Paris"
    assert (ear.replicas, ear.texts) == (["rep_a"], ["Pa", "ris"])
    assert replica.asked[0]["stream"] is True
    assert replica.asked[0]["stream_options"] == {"include_usage": True}


async def test_who_does_not_want_the_text_is_not_streamed_to(platform, follow):
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    answer = await follow(Ear(wants_text=False))
    assert json.loads(answer.body) == platform.COMPLETION
    assert "stream" not in replica.asked[0]


async def test_a_replica_that_answers_whole_though_asked_to_stream_is_believed(platform, follow):
    replica = await platform.ready(platform.Script.json(platform.COMPLETION))
    answer = await follow(Ear())
    assert json.loads(answer.body) == platform.COMPLETION
    assert replica.asked[0]["stream"] is True


async def test_a_refusal_is_the_answer(platform, follow):
    await platform.ready(platform.Script.error(400))
    answer = await follow(Ear())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "no")


async def test_an_error_in_the_middle_of_the_stream_is_the_answer(platform, follow):
    error = platform.event({"error": {"message": "out of blocks", "code": "generation_failed"}})
    await platform.ready(platform.Script.stream(platform.chunk("Pa"), error))
    answer = await follow(Ear())
    assert (answer.status, json.loads(answer.body)["error"]["message"]) == (500, "out of blocks")


async def test_what_the_caller_did_is_no_fault_of_the_replica_in_the_middle_either(
    platform, follow
):
    told = {"message": "too costly", "type": "invalid_request_error", "code": "schema_too_complex"}
    error = platform.event({"error": told})
    await platform.ready(platform.Script.stream(platform.chunk("Pa"), error))
    answer = await follow(Ear())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "schema_too_complex")


async def test_a_stream_that_ends_before_its_end_is_no_answer(platform, follow):
    await platform.ready(platform.Script.stream(platform.chunk("Pa")))
    with pytest.raises(UpstreamFailed, match="too early"):
        await follow(Ear())


async def test_whoever_stops_following_hangs_up_on_the_replica(platform, follow):
    replica = await platform.ready(platform.Script.stream(platform.chunk("Pa"), 60.0))
    ear = Ear()
    following = asyncio.create_task(follow(ear))
    async with asyncio.timeout(60):
        while not ear.texts:
            await asyncio.sleep(0.005)
        following.cancel()
        await replica.was_left.wait()
    assert platform.demand().in_flight == 0


async def test_another_replica_is_asked_when_the_first_is_gone_before_its_first_byte(
    platform, follow
):
    deployment = platform.deploy()
    dead = await platform.replica(platform.Script.stream(platform.Dies()), "rep_dead")
    good = await platform.replica(
        platform.Script.stream(platform.chunk("x"), platform.USAGE, platform.DONE), "rep_good"
    )
    platform.publish(dead, good, deployment=deployment)
    ears = [Ear() for _ in range(4)]
    answers = [await follow(ear) for ear in ears]
    assert {answer.status for answer in answers} == {200}
    assert all(ear.replicas[-1] == "rep_good" for ear in ears)
