"""The items of one array, checked one by one: all texts, or all lists of tokens; or tokens, which
are one prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidegate.protocol.work import MAX_INVOCATION_ITEMS
from tidegate_controlplane.errors import BadRequest


@dataclass
class ItemCheck:
    """Told of each item as it comes; raises BadRequest naming the one that is wrong."""

    name: str
    items: int = 0
    first: Any = None
    """The first item; it stands for the others in the check of the fields."""
    kind: str = ""
    tokens: int = 0
    """Of the list that is read now."""

    @property
    def is_one_prompt(self) -> bool:
        """Whether the array is the token ids of one prompt."""
        return self.kind == "number"

    def scalar(self, kind: str, value: Any) -> None:
        """An item that is neither an array nor an object."""
        if kind not in ("string", "number") or (kind == "number" and type(value) is not int):
            raise self.unfit(value)
        self._item(kind, value)
        if value == "":
            raise self._empty()

    def open(self) -> None:
        """An item begins that is a list of tokens, each an integer."""
        self.tokens = 0
        self._item("start_array", [0])

    def close(self) -> None:
        if not self.tokens:
            raise self._empty()

    def _item(self, kind: str, value: Any) -> None:
        self.kind = self.kind or kind
        if kind != self.kind:
            raise self.unfit(value)
        if self.items == 0:
            self.first = value
        self.items += 1
        if self.items > MAX_INVOCATION_ITEMS and not self.is_one_prompt:
            raise BadRequest(
                f"Invalid value for '{self.name}': at most {MAX_INVOCATION_ITEMS} items in one "
                "invocation; send several.",
                param=self.name,
            )

    def unfit(self, value: Any) -> BadRequest:
        return BadRequest(
            f"Invalid value for '{self.name}': expected all texts, all token ids or all lists of "
            f"token ids; item {self.items} is another ({str(value)[:80]!r}).",
            param=self.name,
        )

    def _empty(self) -> BadRequest:
        return BadRequest(
            f"Invalid value for '{self.name}': item {self.items - 1} is empty.", param=self.name
        )
