"""How good heads are: how often they are right on continuations that they have not learnt from."""

from __future__ import annotations

import torch

from tidegate_runtime.distill.examples import Examples
from tidegate_runtime.speculation.guess import Heads

_ROWS = 256


def acceptance(heads: Heads, examples: Examples) -> list[float]:
    """The share of rows whose first 1, 2, ... guesses are all right. The labels are tokens, and
    what was said must be the best tokens, or the later guesses are judged by another text.
    """
    levels = examples.labels.shape[1]
    right = torch.zeros(levels)
    for start in range(0, len(examples.hidden), _ROWS):
        rows = slice(start, start + _ROWS)
        tokens = examples.tokens[rows, 0].tolist()
        guesses = torch.tensor(heads.guess(examples.hidden[rows].float(), tokens, levels))
        right += (guesses == examples.labels[rows]).long().cumprod(dim=1).sum(dim=0)
    shares: list[float] = (right / len(examples.hidden)).tolist()
    return [round(share, 4) for share in shares]
