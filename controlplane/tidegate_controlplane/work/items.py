"""The items of one array of a large body, in groups of a bounded size, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import ijson

from tidegate_controlplane.objects.threads import in_thread

READ_BYTES = 256 * 1024
"""That are parsed at once."""
PIECE_ITEMS = 32
"""In one request to a replica: at 8 choices each they are as many sequences as it may have, and
with 4,096 numbers each their embeddings are about 3 MB."""
PIECE_BYTES = 1024 * 1024
"""Of the items of one request; a larger item goes alone."""


@dataclass
class ItemReader:
    """Feed it a body that an Intake has accepted; it gives the items of `array` that are whole."""

    array: str
    _in_array: bool = False
    _tokens: list[int] | None = None
    _nesting: int = 0
    _field: str | None = None
    _events: list[tuple[str, Any]] = field(default_factory=ijson.sendable_list)

    def __post_init__(self) -> None:
        self._parser = ijson.basic_parse_coro(self._events, use_float=True)

    def feed(self, data: bytes) -> list[Any]:
        """The items that `data` completes: each a text, or a list of token ids."""
        found: list[Any] = []
        self._parser.send(data)
        for kind, value in self._events:
            self._take(kind, value, found)
        self._events.clear()
        return found

    def _take(self, kind: str, value: Any, found: list[Any]) -> None:
        match kind:
            case "start_map" | "start_array":
                self._nesting += 1
                if self._nesting == 2 and self._field == self.array:
                    self._in_array = True
                elif self._nesting == 3 and self._in_array:
                    self._tokens = []
            case "end_map" | "end_array":
                self._nesting -= 1
                if self._tokens is not None:
                    found.append(self._tokens)
                    self._tokens = None
                elif self._nesting == 1:
                    self._in_array = False
            case "map_key" if self._nesting == 1:
                self._field = value
            case _ if self._tokens is not None:
                self._tokens.append(value)
            case _ if self._in_array:
                found.append(value)


async def groups(pieces: AsyncIterator[bytes], array: str) -> AsyncIterator[list[Any]]:
    """The items of `array` in order, in groups of at most PIECE_ITEMS and about PIECE_BYTES."""
    reader = ItemReader(array)
    group: list[Any] = []
    size = 0
    async for data in _cut(pieces):
        for item in await in_thread(reader.feed, data):
            item_bytes = _size(item)
            if group and (len(group) == PIECE_ITEMS or size + item_bytes > PIECE_BYTES):
                yield group
                group, size = [], 0
            group.append(item)
            size += item_bytes
    if group:
        yield group


async def _cut(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small pieces: a token takes one byte or two of a body, and many times that when parsed."""
    async for piece in pieces:
        for start in range(0, len(piece), READ_BYTES):
            yield piece[start : start + READ_BYTES]


def _size(item: Any) -> int:
    """About the bytes that it takes in a request."""
    return len(item.encode()) if isinstance(item, str) else 7 * len(item)
