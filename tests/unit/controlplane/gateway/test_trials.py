"""What is kept of the answers of two revisions while one is on trial."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from tidegate.spec import Mode, Task
from tidegate_controlplane.errors import DeadlinePassed, UpstreamFailed
from tidegate_controlplane.gateway.answers import replies_of
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.gateway.hop import Question
from tidegate_controlplane.gateway.outcomes import Histogram
from tidegate_controlplane.gateway.replica import Ask
from tidegate_controlplane.gateway.shadow import Original
from tidegate_controlplane.gateway.trials import Exchange, Trial, Trials

SERVED = Served(
    "dep_1", "prj", "smol", Mode.REALTIME, Task.GENERATE, datetime(2026, 1, 1, tzinfo=UTC)
)
GREEDY = json.dumps({"temperature": 0}).encode()
DONE = b"data: [DONE]\n\n"


def whole(text: str, tokens: int = 4) -> bytes:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": tokens}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def piece(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@dataclass
class HandClock:
    elapsed_s: float = 0.0

    def monotonic(self) -> float:
        return self.elapsed_s

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Answering:
    """Stands for the copier: each copy is answered at once with `answer`."""

    answer: bytes | None = None
    asked: list[Original] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def send(
        self,
        original: Original,
        targets: Sequence[Endpoint],
        compare: Callable[[bytes | None], None],
    ) -> None:
        self.asked.append(original)
        compare(self.answer)

    def drop(self, deployment_id: str) -> None:
        self.dropped.append(deployment_id)


@dataclass
class Room:
    clock: HandClock
    copier: Answering
    trials: Trials

    def begin(self, key: str = "rol/0", copied: float = 0.0) -> None:
        self.trials.begin("dep_1", Trial(key, "old", "new", copied, [endpoint("new")]))

    def sent(self, revision: str, *, is_whole: bool, body: bytes = GREEDY) -> Exchange:
        question = Question("/v1/completions", body, "req_1", Ask(), whole=is_whole)
        return self.trials.exchange(SERVED, endpoint(revision), question)

    async def answer(self, revision: str, text: str, body: bytes = GREEDY) -> None:
        exchange = self.sent(revision, is_whole=True, body=body)
        self.clock.elapsed_s += 0.4
        await self.tell(exchange, 200, whole(text))

    async def tell(
        self, exchange: Exchange, status: int, *pieces: bytes, between_s: float = 0.0
    ) -> None:
        """Let an exchange see a whole answer."""

        async def come() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
                self.clock.elapsed_s += between_s

        exchange.began(status, pieces[0])
        assert [piece async for piece in exchange.watch(come())] == list(pieces)

    def counts(self, revision: str) -> tuple[int, int]:
        view: Any = self.trials.view("dep_1", "rol/0")
        side = view.stable if revision == "old" else view.new
        return side.answered, side.failed


def endpoint(revision: str) -> Endpoint:
    return Endpoint(f"rep_{revision}", "http://x", "t", 4, revision)


@pytest.fixture
def room() -> Room:
    clock, copier = HandClock(), Answering()
    return Room(clock, copier, Trials(clock, copier))  # type: ignore[arg-type]


async def test_answers_and_failures_are_counted_by_revision(room: Room) -> None:
    room.begin()
    await room.answer("old", "a")
    await room.answer("new", "a")
    room.sent("new", is_whole=True).failed()
    assert (room.counts("old"), room.counts("new")) == ((1, 0), (1, 1))


@pytest.mark.parametrize(
    ("status", "last", "counted"),
    [
        (200, DONE, (1, 0)),
        (200, b"data: {}\n\n", (0, 1)),
        (500, b"{}", (0, 1)),
        (429, b"{}", (0, 0)),
    ],
)
async def test_a_stream_without_its_end_and_a_5xx_are_failures_and_a_4xx_is_the_callers(
    room: Room, status: int, last: bytes, counted: tuple[int, int]
) -> None:
    room.begin()
    await room.tell(room.sent("new", is_whole=False), status, piece("a"), last)
    assert room.counts("new") == counted


async def test_a_caller_who_leaves_counts_nowhere(room: Room) -> None:
    room.begin()

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield piece("a")

    exchange, pieces = room.sent("new", is_whole=False), endless()
    exchange.began(200, piece("a"))
    async for _ in exchange.watch(pieces):
        break
    await pieces.aclose()
    assert room.counts("new") == (0, 0)


@pytest.mark.parametrize("error", [UpstreamFailed("it stopped"), DeadlinePassed("too long")])
async def test_a_stream_that_breaks_off_is_a_failure_and_stays_an_error(
    room: Room, error: Exception
) -> None:
    room.begin()

    async def broken() -> AsyncIterator[bytes]:
        yield piece("a")
        raise error

    exchange = room.sent("new", is_whole=False)
    exchange.began(200, piece("a"))
    with pytest.raises(type(error)):
        [_ async for _ in exchange.watch(broken())]
    assert room.counts("new") == (0, 1)


async def test_streams_tell_the_first_token_and_both_kinds_the_time_per_token(room: Room) -> None:
    room.begin()
    exchange = room.sent("new", is_whole=False)
    room.clock.elapsed_s += 0.5
    await room.tell(exchange, 200, piece("a"), piece("b") + DONE, between_s=0.1)
    await room.answer("old", "four tokens in 0.4 s")
    view = room.trials.view("dep_1", "rol/0")
    assert view
    assert view.new.first_token_s == pytest.approx(0.5, rel=0.05)
    assert view.new.per_token_s == pytest.approx(0.1, rel=0.05)
    assert (view.stable.streams, view.stable.per_token_s) == (0, pytest.approx(0.1, rel=0.05))


async def test_figures_begin_anew_with_each_stage_and_end_with_the_trial(room: Room) -> None:
    room.begin()
    await room.answer("new", "a")
    room.begin()
    assert room.counts("new") == (1, 0)
    room.begin("rol/1")
    assert room.trials.view("dep_1", "rol/0") is None
    view = room.trials.view("dep_1", "rol/1")
    assert view and view.new.answered == 0
    room.trials.end("dep_1")
    assert room.trials.view("dep_1", "rol/1") is None
    assert room.copier.dropped == ["dep_1"]
    await room.answer("new", "nobody watches")


async def test_a_share_of_the_stable_answers_is_compared(room: Room) -> None:
    room.begin(copied=0.25)
    room.copier.answer = whole("Paris, Frankfurt")
    for _ in range(8):
        await room.answer("old", "Paris, France!!!")
        await room.answer("new", "what the new one says to callers is not copied")
    view = room.trials.view("dep_1", "rol/0")
    assert view and view.likeness
    assert len(room.copier.asked) == view.likeness.compared == 2
    assert view.likeness.agreement == pytest.approx(11 / 16)


async def test_an_answer_that_had_begun_when_copying_began_is_not_compared(room: Room) -> None:
    room.begin()
    exchange = room.sent("old", is_whole=False)

    async def come() -> AsyncIterator[bytes]:
        yield piece("Pa")
        room.begin(copied=1.0)
        yield piece("ris")
        yield DONE

    exchange.began(200, piece("Pa"))
    assert len([part async for part in exchange.watch(come())]) == 3
    assert room.copier.asked == []


async def test_a_copy_that_fails_is_a_failure_of_the_new_revision(room: Room) -> None:
    room.begin(copied=1.0)
    await room.answer("old", "Paris")
    assert room.counts("new") == (0, 1)


async def test_only_requests_with_temperature_zero_tell_of_agreement(room: Room) -> None:
    room.begin(copied=1.0)
    room.copier.answer = whole("Paris")
    await room.answer("old", "Paris", body=json.dumps({"temperature": 0.7}).encode())
    view = room.trials.view("dep_1", "rol/0")
    assert view and view.likeness
    assert (view.likeness.compared, view.likeness.agreement) == (1, None)


def test_texts_are_read_from_whole_and_streamed_answers_alike() -> None:
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    streamed = piece("Pa") + b": heartbeat\n\n" + piece("ris") + end + DONE
    assert replies_of(streamed) == replies_of(whole("Paris"))
    assert replies_of(b'{"data": [{"embedding": [1]}]}') == replies_of(b"no JSON") == []


def test_the_median_of_a_histogram_is_within_a_bucket_of_the_truth() -> None:
    histogram = Histogram()
    assert histogram.median_s is None
    for seconds in (0.0, 0.010, 0.011, 0.012, 1e9):
        histogram.add(seconds)
    assert histogram.median_s == pytest.approx(0.011, rel=0.04)
