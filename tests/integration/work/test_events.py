"""What a reader is told of an invocation while it waits, runs and ends."""

from __future__ import annotations

import asyncio
import json

import pytest

from tidegate_controlplane.errors import Conflict, NotFound, Unavailable
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.work import events as events_module
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.partial import MAX_PARTIAL_CHARS, Partial


class Talker:
    """A replica that says what the test tells it to, piece by piece."""

    def __init__(self, endpoints):
        self.endpoints = endpoints
        self.pieces = asyncio.Queue()

    def say(self, *pieces):
        for piece in pieces:
            self.pieces.put_nowait(piece)

    async def follow(self, listener, served, path, body, *, deadline, **_):
        async with self.endpoints.acquire(served.deployment_id, deadline):
            listener.asked("rep_1")
            said = []
            while isinstance(piece := await self.pieces.get(), str):
                said.append(piece)
                listener.heard({"choices": [{"index": 0, "delta": {"content": piece}}]})
            return (
                piece
                if isinstance(piece, Answer)
                else Answer(200, json.dumps({"said": said}).encode())
            )


END = None


@pytest.fixture
async def talker(house):
    await house.deploy()
    return Talker(house.endpoints)


class Reader:
    """Reads events as a client would."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def event(self):
        """The next event: its id and its data; None at the end. Heartbeats are skipped."""
        while True:
            async with asyncio.timeout(60):
                while b"\n\n" not in self.buffer:
                    self.buffer += await anext(self.stream)
            raw, _, self.buffer = self.buffer.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in raw.decode().splitlines())
            if "data" in fields:
                break
        if fields["data"] == "[DONE]":
            return None
        data = json.loads(fields["data"])
        assert fields["event"] == data["type"]
        return int(fields["id"]) if "id" in fields else None, data

    async def rest(self):
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


async def reading(work, kit, invocation_id, after=None):
    return Reader(await work.invocations.events(kit.principal, invocation_id, after))


def told(events):
    """In short: states as they are called, texts as they are."""
    short = []
    for _, data in events:
        match data["type"]:
            case "state":
                short.append(data["invocation"]["status"])
            case "text":
                short.append((data["attempt"], data["text"]))
            case "text_begins":
                short.append(("begins", data["attempt"]))
    return short


async def test_states_and_text_come_in_their_order_and_the_last_is_the_end(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        reader = await reading(work, kit, invocation_id)
        talker.say("Pa")
        events = [await reader.event()]
        while told(events)[-1] != (1, "Pa"):
            events.append(await reader.event())
        talker.say("ris", END)
        events += await reader.rest()
    assert [one for one in told(events) if one != "queued"] == [
        "running",
        ("begins", 1),
        (1, "Pa"),
        (1, "ris"),
        "succeeded",
    ]
    ids = [id_ for id_, _ in events if id_ is not None]
    assert ids == sorted(set(ids))


async def test_a_reader_who_comes_late_gets_the_text_from_its_beginning(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        first = await reading(work, kit, invocation_id)
        talker.say("Pa", "ris")
        seen = [await first.event()]
        while "".join(one[1] for one in told(seen) if one[0] == 1) != "Paris":
            seen.append(await first.event())
        last_id = max(id_ for id_, _ in seen if id_)
        late = await reading(work, kit, invocation_id, after=last_id)
        assert told([await late.event(), await late.event()]) == [("begins", 1), (1, "Paris")]
        talker.say(END)
        assert told(await late.rest()) == told(await first.rest()) == ["succeeded"]


async def test_what_was_said_last_comes_before_the_end_that_is_read_from_the_row(house):
    """The row may be read as finished before the run has left the stage."""
    await house.deploy()
    row = await house.row(await house.submit(house.work()))
    row.status, row.lease_epoch, row.claimed_at = "running", 1, house.clock.now()
    notices = Notices()
    partial = Partial(1, lambda: notices.heard(row.id))

    async def look():
        return row

    with notices.following(row.id, partial):
        reader = Reader(events_module.Events(notices, house.clock, 60.0).of(row.id, look, None))
        partial.asked("rep_1")
        partial.heard({"choices": [{"index": 0, "text": "Pa"}]})
        events = [await reader.event() for _ in range(3)]
        partial.heard({"choices": [{"index": 0, "text": "ris"}]})
        row.status, row.finished_at = "succeeded", house.clock.now()
        notices.changed([row.id])
        events += await reader.rest()
    assert told(events) == ["running", ("begins", 1), (1, "Pa"), (1, "ris"), "succeeded"]


async def test_a_new_attempt_says_that_the_text_begins_anew(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        reader = await reading(work, kit, invocation_id)
        talker.say("lost")
        events = [await reader.event()]
        while told(events)[-1] != (1, "lost"):
            events.append(await reader.event())
        talker.say(kit.refused(500), "kept")
        while told(events)[-1] != (2, "kept"):
            events.append(await reader.event())
        talker.say(END)
        events += await reader.rest()
    texts = [one for one in told(events) if isinstance(one, tuple)]
    assert texts == [("begins", 1), (1, "lost"), ("begins", 2), (2, "kept")]
    assert told(events)[-1] == "succeeded"


async def test_a_finished_one_is_told_at_once_and_only_once(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        talker.say(END)
        await house.finished(work, invocation_id)
        events = await (await reading(work, kit, invocation_id)).rest()
        assert told(events) == ["succeeded"]
        again = await reading(work, kit, invocation_id, after=events[-1][0])
        assert await again.rest() == []


async def test_a_redriven_one_is_told_of_to_whoever_saw_it_die(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work, max_attempts=1)
        talker.say(kit.refused(500))
        events = await (await reading(work, kit, invocation_id)).rest()
        assert told(events)[-1] == "dead"
        await work.invocations.redrive(kit.principal, invocation_id)
        talker.say("x", END)
        after = await reading(work, kit, invocation_id, after=events[-1][0])
        assert told(await after.rest())[-1] == "succeeded"


async def test_states_come_from_the_row_when_another_process_runs_it(house, kit, talker):
    here = house.work()
    invocation_id = await house.submit(here)
    reader = await reading(here, kit, invocation_id)
    assert told([await reader.event()]) == ["queued"]
    async with house.working(forwarder=talker) as elsewhere:
        talker.say("unheard", END)
        await house.finished(elsewhere, invocation_id)
        assert [one for one in told(await reader.rest()) if one != "running"] == ["succeeded"]


async def test_a_silent_stream_beats(house, kit, talker):
    limits = house.settings.limits.model_copy(update={"heartbeat_s": 0.05})
    settings = house.settings.model_copy(update={"limits": limits})
    async with house.working(forwarder=talker, settings=settings) as work:
        invocation_id = await house.submit(work)
        stream = await work.invocations.events(kit.principal, invocation_id, None)
        async with asyncio.timeout(60):
            while not (await anext(stream)).startswith(b":"):
                pass
        await stream.aclose()


async def test_a_stream_ends_without_an_end_when_the_process_stops(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        stream = await work.invocations.events(kit.principal, invocation_id, None)
        content = await anext(stream)
    async with asyncio.timeout(60):
        content += b"".join([piece async for piece in stream])
    assert b"[DONE]" not in content


async def test_another_project_is_told_nothing(house, kit, talker):
    work = house.work()
    invocation_id = await house.submit(work)
    with pytest.raises(NotFound):
        await work.invocations.events(kit.stranger, invocation_id, None)


async def test_the_number_of_readers_is_bounded(house, kit, talker, monkeypatch):
    monkeypatch.setattr(events_module, "MAX_LISTENERS", 1)
    work = house.work()
    invocation_id = await house.submit(work)
    first = await reading(work, kit, invocation_id)
    await first.event()
    with pytest.raises(Unavailable) as refused:
        await work.invocations.events(kit.principal, invocation_id, None)
    assert refused.value.retry_after_s
    await first.stream.aclose()
    await (await reading(work, kit, invocation_id)).event()


async def test_a_run_that_lost_its_lease_is_heard_no_more(house, kit, talker):
    async with house.working(forwarder=talker) as work:
        invocation_id = await house.submit(work)
        talker.say("x")
        await kit.until(
            lambda: asyncio.sleep(0, work.invocations._notices.partial(invocation_id)),
            lambda partial: partial is not None and partial.texts,
        )
        await work.invocations.cancel(kit.principal, invocation_id)
        await kit.until(
            lambda: asyncio.sleep(0, work.invocations._notices.partial(invocation_id)),
            lambda partial: partial is None,
        )
        with pytest.raises(Conflict):
            await work.invocations.result(kit.principal, invocation_id)


def test_the_text_that_is_kept_of_a_run_is_bounded():
    partial = Partial(1, lambda: None)
    partial.asked("rep_1")
    for _ in range(5):
        text = "x" * (MAX_PARTIAL_CHARS // 2)
        partial.heard({"choices": [{"index": 0, "delta": {"content": text}}]})
    assert sum(map(len, partial.texts[0])) <= MAX_PARTIAL_CHARS
    assert (partial.tokens, partial.is_cut) == (5, True)
