"""The softmax of rows of logits, known by chunks of the vocabulary until a chunk is asked for."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

import numpy as np
import torch

CHUNK = 64

Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Shares(Protocol):
    """What each token has of its row: e^((logit - largest) / temperature), not normalised.

    `sums` and `highest` `[rows, chunks]` are those of each chunk of 64 tokens; beyond the
    vocabulary the shares are zero.
    """

    sums: Floats
    highest: Floats

    def inside(self, rows: Places, chunks: Places) -> Floats:
        """The shares `[n, 64]` of n chunks."""


class SharesOf(Protocol):
    """Makes the shares of the rows `places` of `logits` `[…, vocabulary]`."""

    def __call__(
        self, logits: torch.Tensor, places: Many[int], temperatures: Many[float]
    ) -> Shares: ...


class TorchShares:
    """By torch's operators, where the logits lie."""

    def __init__(self, logits: torch.Tensor, places: Many[int], temperatures: Many[float]) -> None:
        device = logits.device
        rows = logits.index_select(0, torch.tensor(places, device=device))
        heat = torch.tensor(temperatures, device=device).unsqueeze(1)
        shares = rows.sub_(rows.amax(dim=-1, keepdim=True)).div_(heat).exp_()
        if missing := -shares.shape[1] % CHUNK:
            shares = torch.nn.functional.pad(shares, (0, missing))
        self._chunks = shares.view(len(shares), -1, CHUNK)
        self.sums: Floats = self._chunks.sum(dim=-1).cpu().numpy()
        self.highest: Floats = self._chunks.amax(dim=-1).cpu().numpy()

    def inside(self, rows: Places, chunks: Places) -> Floats:
        """The shares `[n, 64]` of n chunks."""
        places = torch.from_numpy(rows * self._chunks.shape[1] + chunks)
        chosen = self._chunks.flatten(0, 1).index_select(0, places.to(self._chunks.device))
        found: Floats = chosen.cpu().numpy()
        return found
