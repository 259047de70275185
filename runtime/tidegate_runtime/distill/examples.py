"""What there is to learn from: hidden states, and the tokens that the model said after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tidegate_runtime.distill.traces import Traces

UNKNOWN = -100
"""The label of a token that is not on the shortlist: nothing is learnt from it."""


@dataclass(frozen=True)
class Examples:
    """`hidden` bf16 `[rows, hidden]`; `labels` int64 `[rows, levels]`, the tokens to guess; and
    `tokens` int32 `[rows, levels]`, the one that was said before each of them.
    """

    hidden: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, traces: Traces, levels: int, first: int) -> Examples:
        """Of every place: the model's best tokens, `first` places on and those after it.

        A head on the last layer guesses from one place on, since the model itself tells the token
        of this one; an early exit guesses that.
        """
        count = traces.best.shape[1] - first - levels + 1

        def ahead(said: torch.Tensor) -> torch.Tensor:
            places = [said[:, first + level :][:, :count] for level in range(levels)]
            return torch.stack(places, dim=-1).flatten(0, 1)

        hidden = traces.hidden[:, :count].flatten(0, 1)
        return cls(hidden, ahead(traces.tokens), ahead(traces.best).long())

    def known(self, shortlist: torch.Tensor, vocabulary: int) -> Examples:
        """With labels that are places on the shortlist, or `UNKNOWN`."""
        places = torch.full((vocabulary,), UNKNOWN)
        places[shortlist.long()] = torch.arange(len(shortlist))
        return Examples(self.hidden, self.tokens, places[self.labels])

    def batches(self, rows: int, seed: int) -> Iterator[Examples]:
        """All of them once, shuffled, in whole batches of `rows`."""
        order = torch.randperm(len(self.hidden), generator=torch.Generator().manual_seed(seed))
        for start in range(0, len(order) - rows + 1, rows):
            chosen = order[start : start + rows]
            yield Examples(self.hidden[chosen], self.tokens[chosen], self.labels[chosen])


def shortlist_of(traces: Traces, text: Sequence[int], vocabulary: int, size: int) -> torch.Tensor:
    """The `size` tokens, int32 and in order, that the model said most often; where it did not say
    so many, those of the text, then the first of the vocabulary.
    """
    said = torch.bincount(traces.best.flatten().long(), minlength=vocabulary).double()
    told = torch.bincount(torch.tensor(text), minlength=vocabulary).double()
    rank = said + told / (told.sum() + 1)
    likeliest = rank.sort(descending=True, stable=True).indices[:size]
    return likeliest.sort().values.int()
