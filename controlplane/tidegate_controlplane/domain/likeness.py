"""How alike two answers to the same request are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.protocol.resources import LikenessView


@dataclass(frozen=True)
class Reply:
    """One choice of an answer."""

    text: str
    finish_reason: str | None


@dataclass(frozen=True)
class Likeness:
    """Of the new answer to the returned one."""

    shared_prefix: float
    """Share of the longer text that is equal from its start on: 0 to 1."""
    same_finish: bool
    length_ratio: float
    """Characters of the new text over those of the old."""


def alike(old: Reply, new: Reply) -> Likeness:
    """Greedy decoding that differs once goes its own way from there, so the prefix is compared."""
    shared = next(
        (i for i, (a, b) in enumerate(zip(old.text, new.text, strict=False)) if a != b),
        min(len(old.text), len(new.text)),
    )
    longest = max(len(old.text), len(new.text))
    return Likeness(
        shared_prefix=shared / longest if longest else 1.0,
        same_finish=old.finish_reason == new.finish_reason,
        length_ratio=len(new.text) / max(1, len(old.text)),
    )


@dataclass
class LikenessSum:
    """The mean over many answers, in the space of one."""

    compared: int = 0
    greedy: int = 0
    shared_prefix: float = 0.0
    same_finish: int = 0
    length_ratio: float = 0.0

    def add(self, old: Sequence[Reply], new: Sequence[Reply], *, is_greedy: bool) -> None:
        """One answer to each; a choice that only one of them has differs wholly."""
        pairs = [alike(a, b) for a, b in zip(old, new, strict=False)]
        count = max(1, len(old), len(new))
        self.compared += 1
        self.same_finish += all(pair.same_finish for pair in pairs) and len(old) == len(new)
        self.length_ratio += sum(pair.length_ratio for pair in pairs) / count
        if is_greedy:
            self.greedy += 1
            self.shared_prefix += sum(pair.shared_prefix for pair in pairs) / count

    @property
    def view(self) -> LikenessView:
        return LikenessView(
            compared=self.compared,
            greedy=self.greedy,
            agreement=self.shared_prefix / self.greedy if self.greedy else None,
            same_finish=self.same_finish / self.compared if self.compared else None,
            length_ratio=self.length_ratio / self.compared if self.compared else None,
        )
