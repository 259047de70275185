"""Server-sent events: lines into events, events into chunks.

Source: the HTML standard, section 9.2.6, for the framing; OpenAI's `[DONE]` and in-stream errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from tidegate.errors import ConnectionFailed, UnexpectedAnswer
from tidegate.flow.failures import from_envelope
from tidegate.flow.lines import LineSplitter
from tidegate.flow.steps import Emit, Emitting, Request, ask, chunk

M = TypeVar("M", bound=BaseModel)
DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    data: str
    event: str | None = None
    id: str | None = None


class EventDecoder:
    """Feed it lines; it gives an event at each blank line. Comments (heartbeats) are dropped."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._event: str | None = None
        self._id: str | None = None

    def feed(self, line: str) -> ServerEvent | None:
        """The event that this line completes, if any."""
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id":
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        said = "\n".join(self._data)
        event = ServerEvent(said, self._event, self._id) if self._data else None
        self._data, self._event, self._id = [], None, None
        return event


def events(
    request: Request, model: type[M], on_id: Callable[[str], object] = lambda _: None
) -> Emitting[M]:
    """The chunks of a streamed answer, until `[DONE]`; `on_id` sees the id of each that has one.

    Raises the typed error of an error event, and ConnectionFailed when the stream stops without
    having said that it is done: a cut answer never passes for a finished one.
    """
    reply = yield from ask(request)
    splitter, decoder = LineSplitter(), EventDecoder()
    request_id = reply.headers.get("x-request-id")
    data: bytes | None = b""
    while data is not None:
        data = yield from chunk(reply.body)
        for line in splitter.feed(data) if data is not None else [*splitter.finish(), ""]:
            event = decoder.feed(line)
            if event is None:
                continue
            if event.data.strip() == DONE:
                return
            if event.id is not None:
                on_id(event.id)
            yield Emit(_read(event.data, model, request_id))
    raise ConnectionFailed("the stream ended before it was done; ask again")


def _read(data: str, model: type[M], request_id: str | None) -> M:
    try:
        body: Any = json.loads(data)
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            raise from_envelope(body["error"], request_id=request_id)
        return model.model_validate(body)
    except ValueError as error:
        raise UnexpectedAnswer(
            f"the stream holds something that is not a {model.__name__}: {data[:200]!r}",
            status=200,
            request_id=request_id,
        ) from error
