"""The contract of a proposer: cheap guesses of what a sequence will say next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from tidegate_runtime.engine.sequence import Sequence

MAX_DRAFTS = 15
"""With the token that is run anyway, one tile of 16 rows."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many tokens could be proposed now, and how sure of them the proposer is.

    Guesses of one `kind` (a small number) are believed alike.
    """

    tokens: int
    kind: int = 0


class Proposer(Protocol):
    """Proposes tokens. Deterministic: each is a point, not a distribution (see `verify`).

    `at_once` says whether many guesses of a sequence take no longer than one.
    """

    at_once: bool

    def reach(self, sequence: Sequence) -> Reach:
        """What could be proposed after the sequence's last token; cheap."""

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, list[int]]:
        """Up to `wanted[sequence]` guesses for each, within their reach; fewer are fine."""

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended, whether it was ever seen or not."""


@runtime_checkable
class Watcher(Proposer, Protocol):
    """A proposer that guesses from hidden states; its decoder is watched."""

    def see(self, hidden: torch.Tensor, rows: Mapping[Sequence, int]) -> None:
        """After a step: row `rows[sequence]` of `hidden` chose the sequence's last token."""
