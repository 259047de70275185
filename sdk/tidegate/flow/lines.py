"""Bytes into lines. Only CR, LF and CR LF end a line: JSON text may hold every other separator."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from tidegate.flow.steps import Emit, Emitting, Flow, Request, ask, chunk

T = TypeVar("T")
_ENDING = re.compile(rb"\r\n|\n|\r")


class LineSplitter:
    """Feed it bytes as they come; it gives back the lines that are whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without their endings."""
        pending = self._rest + data
        held = pending.endswith(b"\r")  # its LF may still come
        *whole, self._rest = _ENDING.split(pending[:-1] if held else pending)
        if held:
            self._rest += b"\r"
        return [line.decode("utf-8", "replace") for line in whole]

    def finish(self) -> list[str]:
        """The last line, when it has no ending."""
        rest, self._rest = self._rest.removesuffix(b"\r"), b""
        return [rest.decode("utf-8", "replace")] if rest else []


def lines(request: Request, make: Callable[[str], T]) -> Emitting[T]:
    """The lines of a streamed answer, each turned into something; blank ones are left out."""
    reply = yield from ask(request)
    splitter = LineSplitter()
    while (data := (yield from chunk(reply.body))) is not None:
        for line in filter(None, splitter.feed(data)):
            yield Emit(make(line))
    for line in splitter.finish():
        yield Emit(make(line))


def drain(request: Request) -> Flow[bytes]:
    """The whole of a streamed answer."""
    reply = yield from ask(request)
    parts: list[bytes] = []
    while (data := (yield from chunk(reply.body))) is not None:
        parts.append(data)
    return b"".join(parts)
