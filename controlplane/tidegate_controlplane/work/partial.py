"""How far a run has come, kept in the process that runs it and nowhere else.

None of it is durable: when the run is lost, so is this, and the next one begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_PARTIAL_CHARS = 256 * 1024
"""Of the text that is kept of one run; a longer answer is read when it is finished."""


@dataclass(eq=False)
class Partial:
    """What a replica has said so far: the listener of one run."""

    attempt: int
    changed: Callable[[], None]
    items: int | None = None
    """Items of the request, once it is known to be asked in pieces."""
    replica_id: str | None = None
    beginning: int = 0
    """How often the text began: what was read of an earlier one is void."""
    texts: list[list[str]] = field(default_factory=list)
    """Of each choice, as it came."""
    tokens: int = 0
    items_done: int = 0
    _chars: int = 0

    @property
    def wants_text(self) -> bool:
        return self.items is None

    @property
    def is_cut(self) -> bool:
        """Whether more text came than is kept."""
        return self._chars > MAX_PARTIAL_CHARS

    def asked(self, replica_id: str) -> None:
        """A replica has the request now."""
        self.replica_id = replica_id
        if self.wants_text:
            self.beginning += 1
            self.texts, self.tokens, self._chars = [], 0, 0
        self.changed()

    def heard(self, chunk: dict[str, Any]) -> None:
        """A chunk of chat or completions."""
        for choice in chunk.get("choices") or []:
            said = choice.get("delta") or choice
            self._add(choice.get("index") or 0, said.get("content") or said.get("text") or "")
        self.changed()

    def answered(self, items: int, tokens: int) -> None:
        """So many items of a large request have their answer by now, of so many tokens in all."""
        self.items_done, self.tokens = items, tokens
        self.changed()

    def _add(self, index: int, text: str) -> None:
        if not text:
            return
        self.tokens += 1
        self._chars += len(text)
        while len(self.texts) <= index:
            self.texts.append([])
        if not self.is_cut:
            self.texts[index].append(text)
