"""One answer from the answers to many pieces of a request, written as they come.

A piece is asked like any request of its endpoint. Its choices or vectors are numbered on from those
before, the counts of usage are added up, and what else an answer says is said once, by the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from tidegate_controlplane.objects.threads import in_thread

LIST_OF = {"/v1/completions": "choices", "/v1/embeddings": "data"}
"""Where the answers to the items are, in the shape of each endpoint that takes an array."""


class UnfitAnswer(Exception):
    """An answer to a piece is not what its endpoint answers."""


@dataclass
class JoinedAnswer:
    """Feed it the answer to each piece in turn: it gives the bytes of the whole."""

    endpoint: str
    per_item: int
    """Entries that each item has in an answer: `n` of completions."""
    entries: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """Those whose answer is in it."""
        return self.entries // self.per_item

    def add(self, body: bytes, items: int) -> bytes:
        """What the answer to the next `items` items adds. Raises UnfitAnswer."""
        name = LIST_OF[self.endpoint]
        document = _object(body)
        entries = document.pop(name, None)
        if not isinstance(entries, list) or len(entries) != items * self.per_item:
            raise UnfitAnswer(f"expected {items * self.per_item} entries in '{name}'")
        self._count(document.pop("usage", None))
        opening = b"," if self.entries else _open(document, name)
        shown = b",".join(self._entry(entry, self.entries) for entry in entries)
        self.entries += len(entries)
        return opening + shown

    def finish(self) -> bytes:
        return b'],"usage":' + to_json(self.usage) + b"}"

    def _entry(self, entry: Any, before: int) -> bytes:
        if not isinstance(entry, dict) or type(entry.get("index")) is not int:
            raise UnfitAnswer("an entry has no index")
        entry["index"] += before
        return to_json(entry)

    def _count(self, usage: Any) -> None:
        for name, value in (usage if isinstance(usage, dict) else {}).items():
            if type(value) is int:
                self.usage[name] = self.usage.get(name, 0) + value


async def joined(
    answer: JoinedAnswer,
    groups: AsyncIterator[list[Any]],
    ask: Callable[[list[Any]], Awaitable[bytes]],
) -> AsyncIterator[bytes]:
    """The bytes of the whole answer; one group after the other is asked. Raises UnfitAnswer."""
    async for group in groups:
        yield await in_thread(answer.add, await ask(group), len(group))
    yield answer.finish()


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = from_json(body)
    except ValueError as error:
        raise UnfitAnswer(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UnfitAnswer("not a JSON object")
    return document


def _open(document: dict[str, Any], name: str) -> bytes:
    """The answer up to its first entry."""
    said = to_json(document).removesuffix(b"}")
    return said + (b"," if document else b"") + to_json(name) + b":["
