"""How many weights are taken away, and which by their scores."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from tidegate_runtime.errors import ModelRefused

_PATTERN = re.compile(r"(\d+):(\d+)")
_RUNS = (2, 4, 8, 16, 32)
"""Inputs of a pattern: they divide a group."""


@dataclass(frozen=True)
class Sparsity:
    """`share` of the weights is zero. With `of`, that many of every `of` inputs that lie side by
    side: `2:4` keeps two of four.
    """

    share: float
    of: int | None = None

    @classmethod
    def parse(cls, text: str) -> Sparsity:
        """`0.5`, or `2:4` for two that stay of four. Raises ModelRefused (BadSparsity)."""
        if found := _PATTERN.fullmatch(text):
            kept, of = int(found[1]), int(found[2])
            if 0 < kept < of and of in _RUNS:
                return cls(1 - kept / of, of)
        else:
            try:
                share = float(text)
            except ValueError:
                share = 0.0
            if 0 < share < 1:
                return cls(share)
        raise ModelRefused(
            "BadSparsity",
            f"--sparsity {text!r} is neither a share between 0 and 1 nor a pattern n:m with "
            f"n < m and m one of {', '.join(map(str, _RUNS))}; give 0.5, or 2:4",
        )

    def __str__(self) -> str:
        if self.of is None:
            return f"{self.share:g}"
        return f"{self.of - round(self.share * self.of)}:{self.of}"

    def removed(self, scores: torch.Tensor) -> torch.Tensor:
        """Which weights go: those with the smallest `scores` `[out, in]` of each output's row, or
        of each of its runs of `of` inputs. bool `[out, in]`.
        """
        runs = scores.reshape(len(scores), -1, self.of or scores.shape[1])
        count = int(runs.shape[-1] * self.share + 1e-9)
        smallest = runs.argsort(dim=-1, stable=True)[..., :count]
        gone = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, smallest, True)  # noqa: FBT003
        return gone.reshape(scores.shape)
