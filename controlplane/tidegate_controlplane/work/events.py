"""What happens to an invocation, as server-sent events.

    state        the invocation, whenever that has changed; it has an `id`, and a reader that comes
                 back with it as `Last-Event-ID` is not told again
    text_begins  a replica begins to answer: text of before is void
    text         what is new of a choice
    progress     tokens so far, and items of a request that is asked in pieces

The last event is the final state, then `data: [DONE]`. States are read from the row, so they come
whichever process runs it; text and progress come only from a run in this process and are not
durable. A reader who comes late gets the text of the present run from its beginning.

Nothing is queued for a reader: it is woken, looks at how far the run has come, and is told what it
has not seen. So a slow one costs no memory and just reads larger pieces.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tidegate.protocol.work import InvocationEvent, InvocationState
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.web.relay import HEARTBEAT
from tidegate_controlplane.work.notices import Notices
from tidegate_controlplane.work.partial import Partial
from tidegate_controlplane.work.views import invocation_object

MAX_LISTENERS = 1000
POLL_S = 1.0
"""Between looks at a row that another process may change."""
PROGRESS_S = 1.0
"""Between two events of progress."""
DONE = b"data: [DONE]\n\n"


def ordinal(row: Invocation) -> int:
    """Grows with each state of one invocation: which lease, and what became of it."""
    match InvocationState(row.status):
        case InvocationState.QUEUED:
            step = 2 if row.claimed_at else 0  # again, after a run; or before the first
        case InvocationState.RUNNING:
            step = 1
        case _:
            step = 3
    return 4 * row.lease_epoch + step


@dataclass
class Reader:
    """What one reader has been told of the runs."""

    partial: Partial | None = None
    beginning: int = 0
    told: list[int] = field(default_factory=list)
    """Of each choice, how many pieces of its text."""
    progress: tuple[int, int] = (0, 0)
    progress_at: float = 0.0

    def take(self, partial: Partial | None, now: float) -> Iterator[InvocationEvent]:
        """What is new of the run that goes on."""
        if partial is not self.partial:
            self.partial, self.beginning = partial, 0
            self.progress, self.progress_at = (0, 0), now
        if partial is not None:
            yield from self._news(partial, now, is_over=False)

    def leave(self, now: float) -> Iterator[InvocationEvent]:
        """What is left of a run that is over."""
        if self.partial is not None:
            yield from self._news(self.partial, now, is_over=True)
            self.partial = None

    def _news(self, partial: Partial, now: float, *, is_over: bool) -> Iterator[InvocationEvent]:
        attempt = partial.attempt
        if partial.beginning != self.beginning:
            self.beginning, self.told = partial.beginning, []
            yield InvocationEvent(type="text_begins", attempt=attempt)
        for index, pieces in enumerate(partial.texts):
            if index == len(self.told):
                self.told.append(0)
            if text := "".join(pieces[self.told[index] :]):
                self.told[index] = len(pieces)
                yield InvocationEvent(type="text", attempt=attempt, index=index, text=text)
        progress = (partial.tokens, partial.items_done)
        if progress != self.progress and (is_over or now - self.progress_at >= PROGRESS_S):
            self.progress, self.progress_at = progress, now
            done = None if partial.items is None else partial.items_done
            yield InvocationEvent(
                type="progress",
                attempt=attempt,
                tokens=partial.tokens,
                items_done=done,
                items=partial.items,
            )


class Events:
    """Streams of events, each for one reader."""

    def __init__(self, notices: Notices, clock: Clock, heartbeat_s: float) -> None:
        self._notices = notices
        self._clock = clock
        self._heartbeat_s = heartbeat_s

    def of(
        self, invocation_id: str, look: Callable[[], Awaitable[Invocation]], after: int | None
    ) -> AsyncGenerator[bytes]:
        """Events of states after the one numbered `after`. Raises Unavailable.

        The stream ends without a `[DONE]` when this process stops: another one goes on.
        """
        if self._notices.waiting >= MAX_LISTENERS:
            raise Unavailable(
                f"{MAX_LISTENERS} readers wait for events already; ask for the state instead",
                code="too_many_listeners",
                retry_after_s=10.0,
            )
        return self._stream(invocation_id, look, -1 if after is None else after)

    async def _stream(
        self, invocation_id: str, look: Callable[[], Awaitable[Invocation]], told: int
    ) -> AsyncGenerator[bytes]:
        reader, looked_at, said_at = Reader(), -POLL_S, self._clock.monotonic()
        with self._notices.listen(invocation_id, wants_text=True) as bell:
            while not self._notices.closing:
                bell.woken.clear()
                now = self._clock.monotonic()
                row = None
                if bell.has_changed or now - looked_at >= POLL_S:
                    bell.has_changed, looked_at = False, now
                    row = await look()
                is_final = row is not None and row.finished_at is not None
                partial = self._notices.partial(invocation_id)
                news: list[bytes] = []
                if is_final or partial is not reader.partial:
                    news += map(_event, reader.leave(now))
                if row is not None and ordinal(row) > told:
                    told = ordinal(row)
                    news.append(_state(row, told))
                if not is_final:
                    news += map(_event, reader.take(partial, now))
                if now - said_at >= self._heartbeat_s:
                    news.append(HEARTBEAT)
                if news:
                    said_at = now
                    yield b"".join(news)
                if is_final:
                    yield DONE
                    return
                await bell.rings_within(min(POLL_S, self._heartbeat_s))


def _state(row: Invocation, number: int) -> bytes:
    event = InvocationEvent(type="state", invocation=invocation_object(row))
    return b"id: %d\n" % number + _event(event)


def _event(event: InvocationEvent) -> bytes:
    data = event.model_dump_json(exclude_none=True).encode()
    return b"event: " + event.type.encode() + b"\ndata: " + data + b"\n\n"
