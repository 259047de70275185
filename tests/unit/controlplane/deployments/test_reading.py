"""Lists, events and logs: where a reader goes on, and how it waits."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from tests.unit.controlplane.deployments.conftest import PROJECT, MakeSpec, Room

from tidegate.spec import Mode
from tidegate_controlplane.errors import BadRequest, NotFound


async def names(room: Room, limit: int = 2, **conditions: object) -> list[list[str]]:
    """The names of each page, from the first to the last."""
    pages, after = [], None
    while True:
        page = await room.deployments.read.page(PROJECT, after, limit, **conditions)  # type: ignore[arg-type]
        pages.append([view.name for view in page.data])
        assert page.has_more == (page.next is not None)
        if not page.has_more:
            return pages
        after = page.next


@pytest.fixture
async def five(room: Room, spec: MakeSpec) -> None:
    """a to e: b and e are batch, and of team red."""
    for name in "abcde":
        red = name in "be"
        await room.deployments.apply(
            PROJECT,
            spec(
                name,
                mode="batch" if red else "serverless",
                labels={"team": "red" if red else "blue"},
            ),
        )


@pytest.mark.usefixtures("five")
async def test_pages_follow_one_another_without_gap_or_repetition(room: Room) -> None:
    assert await names(room) == [["a", "b"], ["c", "d"], ["e"]]
    assert await names(room, limit=5) == [["a", "b", "c", "d", "e"]]


@pytest.mark.usefixtures("five")
async def test_lists_are_filtered_by_mode_and_by_label(room: Room) -> None:
    assert await names(room, mode=Mode.BATCH) == [["b", "e"]]
    assert await names(room, label=("team", "red")) == [["b", "e"]]
    assert await names(room, label=("team", "blue")) == [["a", "c"], ["d"]]
    assert await names(room, label=("team", "green")) == [[]]
    assert await names(room, limit=1, label=("team", "red")) == [["b"], ["e"]]
    assert await names(room, label=("nothing", "red")) == [[]]


@pytest.mark.usefixtures("five")
async def test_another_project_sees_none_of_them(room: Room) -> None:
    assert (await room.deployments.read.page("prj_other", None, 10)).data == []
    (model, *_) = (await room.deployments.read.models(PROJECT, None, 10)).data
    assert (await room.deployments.read.model(PROJECT, model.id)) == model
    with pytest.raises(NotFound):
        await room.deployments.read.model("prj_other", model.id)


async def test_replicas_and_revisions_come_in_pages(room: Room, spec: MakeSpec) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    for key in ("rep_1", "rep_2", "rep_3"):
        await room.add_replica(view, key)
    first = await room.deployments.read.replicas(PROJECT, "smol", None, 2)
    assert ([r.id for r in first.data], first.has_more) == (["rep_1", "rep_2"], True)
    rest = await room.deployments.read.replicas(PROJECT, "smol", first.next, 2)
    assert ([r.id for r in rest.data], rest.has_more) == (["rep_3"], False)


async def test_a_deployment_counts_its_replicas_by_phase(room: Room, spec: MakeSpec) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    for number, phase in enumerate(
        ["requested", "starting", "loading", "ready", "draining", "failed"]
    ):
        await room.add_replica(view, f"rep_{number}", phase=phase)
    counted = (await room.deployments.read.get(PROJECT, "smol")).replicas
    assert (counted.starting, counted.ready, counted.draining) == (3, 1, 1)
    (listed,) = (await room.deployments.read.page(PROJECT, None, 10)).data
    assert listed.replicas == counted


# --- events ---------------------------------------------------------------------------------------


async def test_an_event_page_always_says_where_to_go_on(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    first = await room.deployments.read.events(PROJECT, "smol", None, 10)
    assert ([e.reason for e in first.data], first.has_more) == (["Declared"], False)
    assert first.next is not None
    empty = await room.deployments.read.events(PROJECT, "smol", first.next, 10)
    assert (empty.data, empty.next) == ([], first.next)
    await room.deployments.wake(PROJECT, "smol")
    after = await room.deployments.read.events(PROJECT, "smol", empty.next, 10)
    assert [e.reason for e in after.data] == ["WakeRequested"]


async def test_events_come_in_pages_and_never_those_of_another(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    await room.deployments.apply(PROJECT, spec("other"))
    for _ in range(3):
        await room.deployments.wake(PROJECT, "smol")
    first = await room.deployments.read.events(PROJECT, "smol", None, 3)
    assert (len(first.data), first.has_more) == (3, True)
    rest = await room.deployments.read.events(PROJECT, "smol", first.next, 3)
    assert (len(rest.data), rest.has_more) == (1, False)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "٣", "9" * 19, " 1"])
async def test_a_cursor_of_another_list_is_refused(room: Room, spec: MakeSpec, after: str) -> None:
    await room.deployments.apply(PROJECT, spec())
    with pytest.raises(BadRequest, match="is not a cursor of this list"):
        await room.deployments.read.events(PROJECT, "smol", after, 10)


async def test_who_waits_for_events_is_woken_by_the_next_one(room: Room, spec: MakeSpec) -> None:
    await room.deployments.apply(PROJECT, spec())
    first = await room.deployments.read.events(PROJECT, "smol", None, 10)
    waiting = asyncio.create_task(
        room.deployments.read.events(PROJECT, "smol", first.next, 10, wait_s=600)
    )
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await room.deployments.wake(PROJECT, "smol")
    page = await asyncio.wait_for(waiting, 60)
    assert [event.reason for event in page.data] == ["WakeRequested"]


async def test_who_waits_for_events_sleeps_on_when_it_rings_for_nothing(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    first = await room.deployments.read.events(PROJECT, "smol", None, 10)
    waiting = asyncio.create_task(
        room.deployments.read.events(PROJECT, "smol", first.next, 10, wait_s=600)
    )
    for _ in range(3):
        await asyncio.sleep(0.02)
        room.deployments.bell.ring(view.id)
    await room.deployments.apply(PROJECT, spec())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    room.clock.elapsed_s += 601
    room.deployments.bell.ring(view.id)
    page = await asyncio.wait_for(waiting, 60)
    assert (page.data, page.next) == ([], first.next)


async def test_who_waits_in_vain_is_answered_when_the_time_is_over(
    room: Room, spec: MakeSpec
) -> None:
    await room.deployments.apply(PROJECT, spec())
    first = await room.deployments.read.events(PROJECT, "smol", None, 10)
    page = await asyncio.wait_for(
        room.deployments.read.events(PROJECT, "smol", first.next, 10, wait_s=0.05), 60
    )
    assert page.data == []


# --- logs -----------------------------------------------------------------------------------------


async def test_logs_are_read_once_each_and_go_on_where_they_grew(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    await room.add_replica(view, "rep_1")
    await room.add_replica(view, "rep_2")
    room.logs.written = {"rep_1": ["a", "b", "c"], "rep_2": ["x"]}
    read: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = await room.deployments.read.logs(PROJECT, "smol", cursor, 2)
        read += [line.text for line in page.data]
        cursor = page.cursor
    assert read == ["a", "b", "c", "x"]
    room.logs.written["rep_1"].append("d")
    page = await room.deployments.read.logs(PROJECT, "smol", cursor, 2)
    assert [(line.replica, line.text) for line in page.data] == [("rep_1", "d")]


async def test_a_log_cursor_stays_small_however_many_replicas_there_were(
    room: Room, spec: MakeSpec
) -> None:
    view, _ = await room.deployments.apply(PROJECT, spec())
    for number in range(60):
        await room.add_replica(view, f"rep_{number:026}", phase="failed")
    room.logs.written = {f"rep_{number:026}": ["a"] for number in range(60)}
    page = await room.deployments.read.logs(PROJECT, "smol", None, 100)
    assert [line.replica[-2:] for line in page.data] == [f"{n:02}" for n in range(40, 60)]
    assert len(page.cursor) < 2000


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "!!!!",
        encoded([1]),
        encoded({"rep_1": "3"}),
        encoded({"rep_1": -1}),
        encoded({"rep_1": 10**30}),
        encoded({"rep_1": 1.5}),
        base64.urlsafe_b64encode(b"[" * 6000).decode(),
    ],
)
async def test_a_log_cursor_that_is_none_is_refused(
    room: Room, spec: MakeSpec, cursor: str
) -> None:
    await room.deployments.apply(PROJECT, spec())
    with pytest.raises(BadRequest, match="is not a cursor of this log"):
        await room.deployments.read.logs(PROJECT, "smol", cursor, 10)


async def test_a_log_cursor_opens_no_log_of_another_deployment(room: Room, spec: MakeSpec) -> None:
    other, _ = await room.deployments.apply(PROJECT, spec("other"))
    await room.deployments.apply(PROJECT, spec())
    await room.add_replica(other, "rep_1")
    room.logs.written = {"rep_1": ["secret"]}
    page = await room.deployments.read.logs(PROJECT, "smol", encoded({"rep_1": 0}), 10)
    assert page.data == []
    assert "rep_1" not in base64.urlsafe_b64decode(page.cursor).decode()
