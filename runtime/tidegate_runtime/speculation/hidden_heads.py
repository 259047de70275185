"""Guesses by heads on the model's last hidden state, which the step before has left."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.speculation.base import Reach
from tidegate_runtime.speculation.guess import Heads


class HeadsProposer:
    """What the heads make of the state that chose each sequence's last token. Nothing is run again
    and no cache is kept, so a sequence that has rested is guessed as well as any.
    """

    def __init__(self, heads: Heads, max_tokens: int) -> None:
        self.at_once = heads.at_once
        self._heads = heads
        self._levels = min(heads.levels, max_tokens)
        self._hidden = torch.empty(0)
        self._rows: Mapping[Sequence, int] = {}

    def see(self, hidden: torch.Tensor, rows: Mapping[Sequence, int]) -> None:
        """Take the hidden states of the step that just was; they are read before the next one."""
        self._hidden, self._rows = hidden, rows

    def reach(self, sequence: Sequence) -> Reach:
        return Reach(self._levels if sequence in self._rows else 0)

    def propose(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        rows = [self._rows[sequence] for sequence in wanted]
        tokens = [int(sequence.tokens[-1]) for sequence in wanted]
        found = self._heads.guess(self._hidden[rows], tokens, max(wanted.values()))
        return dict(zip(wanted, found, strict=True))

    def forget(self, sequence: Sequence) -> None:
        """What was seen of it goes with the next step."""
