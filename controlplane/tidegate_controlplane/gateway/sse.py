"""Server-sent events of a replica, read as they pass.

Bytes go in as they come and whole events come out as soon as they are whole; nothing is held back
but the beginning of an event whose end has not come. (Source: the WHATWG event stream format, of
which replicas use `data` and comments.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tidegate_controlplane.errors import UpstreamFailed

DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 1024 * 1024
_END = re.compile(rb"\r?\n\r?\n")
_DECODER = json.JSONDecoder()
_LINE = re.compile(rb"\r?\n")

_NO_USAGE = b',"usage":null}\n\n'
_TEXT = re.compile(rb'"(?:content|text|arguments)":\s*"[^"]')


class EventSplitter:
    """Cuts a byte stream after each blank line."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that `piece` completes, each with its blank line."""
        self._rest += piece
        while match := _END.search(self._rest, max(0, self._searched - 3)):
            event = bytes(self._rest[: match.end()])
            del self._rest[: match.end()]
            self._searched = 0
            yield event
        self._searched = len(self._rest)
        if self._searched > MAX_EVENT_BYTES:
            raise UpstreamFailed("the replica sent an event without an end")


class UsageFilter:
    """Reads the usage out of a stream; takes it out as well when the client did not ask for it.

    The replica is always asked for usage, so that it can be accounted. An event in which nothing
    has to change passes byte for byte.
    """

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._splitter = EventSplitter()
        self._usage: tuple[int, int] | None = None
        self.token_events = 0
        """Events that brought text: the number of completion tokens, as far as anybody saw."""
        self.is_finished = False
        """Whether the replica said its last word: `[DONE]`, or an error event."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What the client is to receive of `piece` and what was held before."""
        for event in self._splitter.feed(piece):
            if kept := self._pass(event):
                yield kept

    def tokens(self, prompt_estimate: int) -> tuple[int, int]:
        """Prompt and completion tokens: the replica's count, else what was seen of a cut stream."""
        return self._usage or (prompt_estimate, self.token_events)

    def _pass(self, event: bytes) -> bytes | None:
        """What the client is to receive of an event.

        Almost every event is a piece of text, and is told by its bytes: parsing each would be most
        of what a stream costs. Quotes inside a JSON string are escaped, so `"error"` is a key.
        """
        usages = event.count(b'"usage"')
        if not _is_one_object(event) or b'"error"' in event or usages > event.endswith(_NO_USAGE):
            return self._pass_parsed(event)
        self.token_events += _TEXT.search(event) is not None
        if self._keep_usage or not usages:
            return event
        return event.removesuffix(_NO_USAGE) + b"}\n\n"

    def _pass_parsed(self, event: bytes) -> bytes | None:
        data = _data_of(event)
        if data == DONE:
            self.is_finished = True
            return event
        chunk = _object(data)
        if chunk is None:
            return event
        self.is_finished = self.is_finished or "error" in chunk
        self.token_events += any(_brings_text(choice) for choice in chunk.get("choices") or [])
        if "usage" not in chunk:
            return event
        if chunk["usage"]:
            self._usage = _counts(chunk["usage"])
        if self._keep_usage:
            return event
        if chunk.pop("usage") and not chunk.get("choices"):
            return None
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


class ChunkReader:
    """Reads the chunks of a stream as values."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self.is_done = False
        """Whether the replica said `[DONE]`."""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that `piece` completes; one with an `error` is among them."""
        for event in self._splitter.feed(piece):
            data = _data_of(event)
            self.is_done = self.is_done or data == DONE
            if (chunk := _object(data)) is not None:
                yield chunk


def usage_of(body: bytes) -> tuple[int, int]:
    """Prompt and completion tokens of a whole JSON answer; zeros when it does not say.

    Only the part from the last `"usage"` on is parsed: an answer with embeddings can be many
    megabytes. Inside a JSON string the quotes would be escaped, so it is a key.
    """
    start = body.rfind(b'"usage"')
    if start < 0:
        return 0, 0
    text = body[start + len(b'"usage"') :].decode(errors="replace").lstrip().removeprefix(":")
    try:
        usage, _ = _DECODER.raw_decode(text.lstrip())
    except ValueError:
        return 0, 0
    return _counts(usage)


def error_event(body: bytes) -> bytes:
    """An error envelope as the last event of a stream."""
    return b"data: " + body + b"\n\n"


def _is_one_object(event: bytes) -> bool:
    """Whether an event is one line of data that looks like a JSON object."""
    is_line = event.count(b"\n") == 2 and b"\r" not in event
    return is_line and event.startswith(b"data: {") and event.endswith(b"}\n\n")


def _data_of(event: bytes) -> bytes:
    """The data lines of an event, joined; empty for a comment."""
    lines = (line for line in _LINE.split(event) if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data) if data else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _brings_text(choice: Any) -> bool:
    delta = choice.get("delta") or {}
    calls = delta.get("tool_calls") or []
    argued = any((call.get("function") or {}).get("arguments") for call in calls)
    return bool(choice.get("text") or delta.get("content") or argued)


def _counts(usage: Any) -> tuple[int, int]:
    if not isinstance(usage, dict):
        return 0, 0
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
